"""Bounds from a server's log-probabilities: never above the exact law, and open about what they leave out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_server import Fake, running

from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.read import dialects, scoring
from crystal.read.servers import Server

LOGPROBS = {"known": (*Fake.__dataclass_fields__["known"].default, "echo", "logprobs")}


def client(fake: Fake) -> Server:
    return Server(url=fake.url, model=fake.model, settings=dialects.everything, pause=0.01, patience=5.0)


def table(laws: dict[str, dict[str, float]], *, breaks: dict[str, list[str]] | None = None):
    """A server's replies from a table: text behind "Pick:" -> next token -> probability; letters are tokens, unless `breaks`."""
    def echo(text: str, top: int) -> dict:
        behind = text.removeprefix("Pick:")
        tokens = ["<s>", "Pick", ":", *(breaks or {}).get(behind, [*behind])]
        law = sorted(laws.get(behind, {"!": 1.0}).items(), key=lambda item: -item[1])[:top]
        likeliest = {token: float(np.log(p)) for token, p in law}
        logprobs = {"tokens": [*tokens, law[0][0]], "top_logprobs": [None] + [{}] * (len(tokens) - 1) + [likeliest]}
        return {"choices": [{"text": text, "logprobs": logprobs}], "usage": {"prompt_tokens": len(tokens)}}
    return echo


LAWS = {"": {"1": 0.5, "2": 0.3, "x": 0.15, "\ufffd": 0.05}, "1": {"9": 0.4, ".": 0.6}, "1.": {"5": 0.5, "\n": 0.5},
        "2": {"<|end|>": 0.9, "0": 0.1}}
DIE = TASKS["die"]


def found(echo, **settings) -> scoring.Bounds:
    with running(Fake(echo=echo, **LOGPROBS)) as fake:
        return scoring.score(client(fake), "Pick:", DIE, **settings)


def test_paths_are_followed_until_they_decide():
    bounds = found(table(LAWS))
    np.testing.assert_allclose(bounds.options, [0.15, 0.27, 0, 0, 0, 0])  # "1.\n" is 1, "1.5" and "19" are not; "2<|end|>" is 2
    assert bounds.off_support == pytest.approx(0.15 + 0.5 * 0.4 + 0.5 * 0.6 * 0.5 + 0.03)
    assert bounds.unresolved == pytest.approx(0.05) and bounds.broken == 0 and bounds.requests == 4


def test_what_is_left_out_is_unresolved():
    few = found(table(LAWS), top=1)
    assert few.options.sum() == 0 and few.off_support == pytest.approx(0.15) and few.unresolved == pytest.approx(0.85)
    assert found(table(LAWS), requests=1).unresolved == pytest.approx(0.85)
    assert found(table(LAWS), least=0.4).unresolved == pytest.approx(0.05 + 0.3 + 0.3)
    broken = found(table(LAWS, breaks={"1.": ["1."]}))
    assert broken.options[0] == 0 and broken.broken == pytest.approx(0.3) and broken.unresolved == pytest.approx(0.35)


@pytest.mark.parametrize("reply", [
    {"choices": [{"text": "Pick: 7"}], "usage": {"prompt_tokens": 2}}, {"choices": [{"text": "7", "logprobs": None}]}, {},
    {"choices": [{"logprobs": {"tokens": ["7"], "top_logprobs": [{"7": -1.0}]}}], "usage": {"prompt_tokens": 2}},  # no echo
    {"choices": [{"logprobs": {"content": []}}], "usage": {"prompt_tokens": 2}},
], ids=json.dumps)
def test_a_server_without_them_is_told_so(reply):
    with pytest.raises(CrystalError, match="gives no log-probabilities with a prompt.*echo and logprobs"):
        found(lambda text, top: reply)


def test_a_server_that_spells_otherwise_or_refuses():
    logprobs = {"tokens": ["\u2581pick", ":", "7"], "top_logprobs": [None, {}, {"7": -1.0}]}
    with pytest.raises(CrystalError, match="do not spell"):
        found(lambda text, top: {"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": 2}})
    with running(Fake()) as fake, pytest.raises(CrystalError, match="status 422: Unexpected fields"):
        scoring.score(client(fake), "Pick:", DIE)
    with running(Fake()) as fake, pytest.raises(CrystalError, match="no list of options"):
        scoring.score(client(fake), "Pick:", TASKS["city"])


@pytest.mark.parametrize("name", ["digit", "suit", "ten"])
def test_no_bound_is_above_the_read_out(name):
    """nano-llama's base, its tokenizer and probabilities in the place of a server's, against the exact law."""
    torch = pytest.importorskip("torch")
    from crystal.ask.ladders import load_ladder
    from crystal.read import engine, readout

    rung, task = load_ladder("nano-llama").rung("base"), TASKS[name]
    machine = engine.load(rung.location, dtype="float32")

    def echo(text: str, top: int) -> dict:
        ids = machine.tokenizer(text)["input_ids"]
        law = torch.log_softmax(machine.forward(torch.tensor([ids]))[0, -1].double(), -1).topk(top)
        spelled = [machine.tokenizer.decode([i]) for i in ids]
        likeliest = dict(zip(map(machine.tokenizer.decode, law.indices[:, None].tolist()), law.values.tolist(), strict=True))
        logprobs = {"tokens": [*spelled, "?"], "top_logprobs": [None] + [{}] * (len(ids) - 1) + [likeliest]}
        return {"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": len(ids)}}

    with running(Fake(echo=echo, **LOGPROBS)) as fake:
        for prompt in (PROMPTS[0], PROMPTS[42]):
            text = prompt.text(task, "completion")
            law = readout.readout(machine, [machine.encode(text, "completion")], task, budget=1e-4)[0]
            bounds = scoring.score(client(fake), text, task)
            assert (bounds.options <= law.options + law.unresolved + 1e-6).all()
            assert bounds.options.sum() + bounds.off_support + bounds.unresolved == pytest.approx(1)
            assert (law.options <= bounds.options + bounds.unresolved + 1e-6).all()
            assert bounds.unresolved < 0.01 and bounds.requests < 40  # 0.002 and 23 at most when this was written
