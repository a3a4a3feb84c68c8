"""A server that gives 429, 500, half replies, none: every answer counted once, and what goes wrong
said in a sentence.
"""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import synthetic
import yaml
from fake_server import DISTRIBUTION, KNOWN, PENALTIES, Fake, running

from crystal.ask import ladders
from crystal.ask.cells import Decoding, key_of
from crystal.ask.ladders import STAGES
from crystal.ask.prompts import CHAT, COMPLETION, PERSONAS, PROBE, PROMPTS
from crystal.ask.tasks import TASKS
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.keep import drawing, drawn, manifest, store
from crystal.read import servers
from crystal.read.servers import Server, address
from crystal.tables.importers import write

QUICK = {"pause": 0.01, "patience": 5.0, "timeout": 5.0}
BAD = ("429", "500", "503", "drop", "truncate", "cut json", "<html>", "{}", "[]",
       '{"choices": []}', '{"choices": [{"text": 7}]}')  # fmt: skip


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("CRYSTAL_API_KEY", "OPENAI_API_KEY", "CRYSTAL_SERVER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake():
    with running(Fake()) as there:
        yield there


def client(fake: Fake, **settings) -> Server:
    how = {"settings": servers.everything, **QUICK, **settings}
    return Server(url=fake.url, model=fake.model, **how)


def ask(there: Server, template: str = CHAT, n: int = 1) -> servers.Reply:
    return there.ask(template, "A digit:", n=n, max_tokens=4, seed=5)


# -- one request


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("template", [COMPLETION, CHAT])
def test_a_bad_reply_is_asked_for_again(fake, bad, template):
    fake.mischief = lambda number: bad if number < 2 else None
    reply = ask(client(fake), template, 20)
    assert len(fake.asked) == 3 and len({json.dumps(body) for body in fake.asked}) == 1
    assert len(reply.texts) == 20 == fake.given and {*reply.texts} <= DISTRIBUTION.keys()


def test_a_slow_reply_is_asked_for_again(fake):
    fake.mischief = lambda number: "slow" if number == 0 else None
    assert len(ask(client(fake, timeout=0.3), n=3).texts) == 3
    assert len(fake.asked) == 2 and fake.given == 3


def test_nothing_is_left_to_the_server(fake):
    ask(client(fake), COMPLETION, 3)
    told = {"model": "served", "prompt": "A digit:", "n": 3, "seed": 5, "max_tokens": 4}
    whole = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    assert fake.asked == [told | whole | dict.fromkeys(PENALTIES, 0.0)]


def test_it_waits_as_long_as_it_is_told(fake):
    for value, least, most in (("0.4", 0.4, 2.0), ("soon", 0, 0.3)):
        started, fake.asked[:] = time.perf_counter(), []
        fake.mischief = lambda number, value=value: f"429 {value}" if number == 0 else None
        ask(client(fake))
        assert least <= time.perf_counter() - started < most and len(fake.asked) == 2


def test_a_server_that_asks_for_more_patience_than_there_is(fake):
    fake.mischief = lambda number: "429 3600"
    said = "did not give an answer: status 429: no.*what was drawn is kept"
    with pytest.raises(CrystalError, match=said):
        ask(client(fake))
    assert len(fake.asked) == 1


NONSENSE = {
    "500": "status 500: no",
    "<html>": "a reply that is no JSON: '<html>'",
    "[]": "a reply that is no JSON object",
    '{"error": "out of memory"}': "a reply without answers: .*out of memory",
    "cut json": "no JSON",
    '{"choices": [{"text": "a"}, {"text": "b"}]}': "2 answers where 1 to 1",
    '{"choices": [{"text": "a", "finish_reason": "filter"}]}': "not finished: 'filter'",
}


@pytest.mark.parametrize("bad", NONSENSE)
def test_a_server_that_never_makes_sense_is_given_up(fake, bad):
    fake.mischief = lambda number: bad
    with pytest.raises(CrystalError, match=NONSENSE[bad]):
        ask(client(fake), COMPLETION)
    assert len(fake.asked) == 6


def test_answers_that_were_cut_are_counted(fake):
    fake.ends = "length"
    assert ask(client(fake), n=7).cut == 7


# -- the first words with a server


def test_no_server_there():
    with running(Fake()) as gone:
        pass
    said = "no server answers there: no connection.*--server URL, or .CRYSTAL_SERVER"
    with pytest.raises(CrystalError, match=said):
        servers.connect(gone.url, "served", CHAT)


def test_a_wrong_model_is_told_from_a_missing_endpoint(fake):
    with pytest.raises(CrystalError, match="no model 'other', it has served.*--model served"):
        servers.connect(fake.url, "other", CHAT, **QUICK)
    fake.endpoints = ("chat/completions",)
    with pytest.raises(CrystalError, match="no /v1/completions for 'served'.*--form chat"):
        servers.connect(fake.url, "served", COMPLETION, **QUICK)


DIALECTS = {
    "everything": KNOWN,
    "transformers": ("top_p", "generation_config"),
    "openai": ("top_p", *PENALTIES),
    "tgi": PENALTIES,
}


@pytest.mark.parametrize("spoken", DIALECTS)
def test_the_fullest_dialect_is_used(fake, spoken):
    fake.known = DIALECTS[spoken]
    assert servers.connect(fake.url, "served", CHAT, **QUICK).settings.__name__ == spoken


def test_a_server_that_takes_no_dialect(fake):
    fake.known = ()
    said = "the server refuses: status 422: Unexpected fields.*it serves served"
    with pytest.raises(CrystalError, match=said):
        servers.connect(fake.url, "served", CHAT, **QUICK)


def test_addresses(monkeypatch):
    assert address("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000"
    monkeypatch.setenv("CRYSTAL_SERVER", "https://there")
    assert address(None) == "https://there"
    for wrong in (
        "127.0.0.1:8000",
        "http://",
        "ftp://there",
        "http://[a",
        "http://a:99999",
        "http://a?b",
    ):
        with pytest.raises(CrystalError, match="must begin with http"):
            address(wrong)
    with pytest.raises(CrystalError, match="no user or password") as told:
        address("http://me:secret@there")
    assert "secret" not in str(told.value)
    monkeypatch.delenv("CRYSTAL_SERVER")
    with pytest.raises(CrystalError, match="which server"):
        address(None)


@pytest.mark.parametrize("name", ["CRYSTAL_API_KEY", "OPENAI_API_KEY"])
def test_the_key_goes_to_the_server_and_nowhere_else(fake, monkeypatch, name, caplog):
    monkeypatch.setenv(name, "sk-5ecret\n")
    ask(client(fake))
    assert fake.keys == ["Bearer sk-5ecret"]
    for bad in "401 sk-5ecret is wrong", "400 sk-5ecret is wrong", "<html>sk-5ecret":
        fake.mischief = lambda number, bad=bad: bad
        with pytest.raises(CrystalError, match=r"\*\*\*") as told:
            ask(client(fake))
        assert "5ecret" not in f"{told.value} {told.value.__cause__!r} {caplog.text}"
    monkeypatch.setenv(name, "sk-5ecr\u2026t")
    with pytest.raises(CrystalError, match="no header can") as told:
        ask(client(fake))
    assert "5ecr" not in str(told.value)


# -- does it draw from the whole distribution


WHOLE = r"\d+ of 128 hot tokens differ"


def test_the_probe_lets_a_whole_distribution_pass(fake):
    there = client(fake)
    assert re.fullmatch(WHOLE, servers.probe(there, CHAT)) and there.batch == 50


FAULTS = {
    "greedy": {"seeds": lambda seed, index: 0},  # or it minds no seed and begins anew each time
    "repeats itself": {"seeds": lambda seed, index: index},
    "top 50": {"words": [f"w{i}" for i in range(50)]},
    "top 100": {"words": [f"w{i}" for i in range(100)]},
}
LESS = "does not draw from the whole distribution"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_probe_refuses_less(fake, fault):
    for name, value in FAULTS[fault].items():
        setattr(fake, name, value)
    with pytest.raises(CrystalError, match=f"{LESS}: .* hot tokens differ"):
        servers.probe(client(fake), CHAT)


def test_answers_that_repeat_within_a_request_are_asked_for_one_by_one(fake):
    fake.seeds = lambda seed, index: seed
    there = client(fake)
    servers.probe(there, CHAT)
    assert there.batch == 1


def test_a_server_that_takes_no_more_than_two_is_probed_there(fake):
    """As vLLM and OpenAI. Few tokens prove a top-k only where a temperature makes all likely."""
    fake.hottest = 2.0
    assert re.fullmatch(WHOLE, servers.probe(client(fake), CHAT))
    fake.words = [f"w{i}" for i in range(50)]
    there = client(fake)
    said = r"not probed: \d\d of 128 hot tokens differ, and at 2, .*"
    assert re.fullmatch(said, servers.probe(there, CHAT)) and there.batch == 50
    fake.seeds = lambda seed, index: seed  # answers to one request repeat each other
    assert servers.probe(there, CHAT).startswith("not probed") and there.batch == 1
    for unseeded in (lambda seed, index: 0, lambda seed, index: index):
        fake.seeds = unseeded
        with pytest.raises(CrystalError, match=LESS):
            servers.probe(client(fake), CHAT)


def test_a_server_that_refuses_so_many_answers_is_asked_for_fewer(fake):
    """As llama.cpp, which takes as many as it has slots."""
    fake.slots = 4
    there = client(fake)
    assert len(ask(there, n=50).texts) == 4 == there.batch
    assert re.fullmatch(WHOLE, servers.probe(there, CHAT)) and there.batch == 4
    fake.hottest = 0.5
    with pytest.raises(CrystalError, match="the server refuses: status 400: temperature"):
        ask(there, n=3)
    assert there.batch == 4  # that was not about answers


def test_what_cannot_be_probed_is_said(fake):
    fake.words = ("\ufffd", "", "a")
    assert "have a text" in servers.probe(client(fake), CHAT)
    fake.mischief = lambda number: "400 too hot"
    assert servers.probe(client(fake), CHAT) == "not probed: it refuses a temperature of 2"


# -- draws of a ladder


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A described ladder whose weights are a few bytes."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.setattr(drawing, "FLUSH_SECONDS", 0.0)
    synthetic.write_ladder(tmp_path, "toy", {checkpoint: {} for checkpoint in STAGES})
    synthetic.write_weights(tmp_path, "toy")
    return tmp_path


ASKED = {"tasks": ["digit", "coin"], "prompts": PROMPTS[:6], "n": 130, "checkpoint": "sft", **QUICK}


def draw(fake: Fake, **changes):
    return drawing.draw_served("toy", server=fake.url, model="served", **{**ASKED, **changes})


def stored() -> dict:
    found = {
        (row["task"], row["prompt"], row["decoding"]): dict(zip(row["texts"], row["counts"]))
        for row in drawn.read("toy").to_pylist()
    }
    assert drawn.verify("toy").problems == () and drawn.verify("toy").cells == len(found)
    return found


def test_draws_every_cell_once(toy, fake):
    frame = draw(fake)
    assert (
        list(frame["task"]) == ["digit", "coin"]
        and list(frame["draws"]) == [780, 780]
        and fake.given == 2 * 780
    )
    texts = stored()
    assert len(texts) == 12 and all(sum(counts.values()) == 130 for counts in texts.values())
    assert {text for counts in texts.values() for text in counts} <= {
        " 7",
        " 3, sure.\n",
        "?",
    }  # first lines
    assert frame["none"][0] == sum(
        c.get("?", 0) for (task, *_), c in texts.items() if task == "digit"
    )
    assert list(draw(fake)["new"]) == [0, 0] and fake.given == 2 * 780
    bodies = [body for body in fake.asked if body["temperature"] == 1 and body["max_tokens"] == 12]
    assert len({body["seed"] for body in bodies}) == len(bodies) == 12 * 3
    assert {body["messages"][0]["content"] for body in bodies} == {
        prompt.text(TASKS[task], CHAT) for task in ASKED["tasks"] for prompt in ASKED["prompts"]
    }
    assert list(draw(fake, seed=1)["new"]) == [6, 6] and len(stored()) == 24


@pytest.mark.parametrize("most", [1, 1000])
def test_mischief_changes_no_count(toy, fake, most):
    """Each answer is a function of its seed, so anything lost or counted twice would show."""
    fake.most = most
    draw(fake, n=30)
    before = stored()
    manifest.folder_of("toy", manifest.DRAWS).joinpath("manifest.jsonl").unlink()
    fake.asked.clear()
    trouble = np.random.default_rng(0).choice(
        ["429", "500", "503", "drop", "truncate", "cut json"], size=10**4
    )
    fake.mischief = lambda number: (
        trouble[number] if fake.asked[: number + 1].count(fake.asked[number]) <= 2 else None
    )
    draw(fake, n=30)
    assert stored() == before


def test_goes_on_after_the_server_was_gone(toy):
    with running(Fake()) as calm:
        draw(calm)
    before = stored()
    manifest.folder_of("toy", manifest.DRAWS).joinpath("manifest.jsonl").unlink()
    kept = [0]
    for _ in range(20):
        with running(Fake()) as fake:
            fake.mischief = lambda number: (
                "drop" if number > 30 else None
            )  # probe and first words: nine requests
            try:
                draw(fake, patience=0.05, workers=2)
                break
            except CrystalError as error:
                assert "what was drawn is kept" in str(error)
        kept.append(len(stored()))
        assert kept[-1] > kept[-2]
    assert stored() == before and len(kept) >= 2


def test_goes_on_after_it_was_killed(toy, fake):
    draw(fake)
    before = stored()
    manifest.folder_of("toy", manifest.DRAWS).joinpath("manifest.jsonl").unlink()
    code = (
        "from crystal.keep import drawing; from crystal.ask.prompts import PROMPTS\n"
        "drawing.FLUSH_SECONDS = 0\n"
        f"drawing.draw_served('toy', server={fake.url!r}, model='served', tasks=['digit', 'coin'], "
        "prompts=PROMPTS[:6], n=130, checkpoint='sft', workers=1)"
    )
    fake.asked.clear()
    fake.mischief = lambda number: time.sleep(0.1)
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    while len(fake.asked) < 20:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    fake.mischief = lambda number: None
    assert 0 < len(stored()) < 12
    draw(fake)
    assert stored() == before


def test_a_cell_says_what_drew_it(toy, fake):
    draw(fake, tasks=["digit"])
    draw(fake, tasks=["digit"], form=COMPLETION)
    draw(fake, tasks=["digit"], dtype="bfloat16")
    rows = drawn.read("toy").to_pylist()
    assert len({row["key"] for row in rows}) == len(rows) == 18 and all(
        key_of(row) == row["key"] for row in rows
    )
    assert {json.loads(row["decoding"])["endpoint"] for row in rows} == {
        "completions",
        "chat/completions",
    }
    assert bytes(rows[0]["prompt_ids"]).decode() == rows[0]["text"]
    (first, *_) = manifest.records("toy", manifest.DRAWS)
    assert first["provenance"]["engine"] == "server" and first["provenance"]["server"] == {
        "model": "served",
        "checked": "unchecked",
        "probe": first["provenance"]["server"]["probe"],
        "settings": "everything",
        "software": "fake ",
        "cut": 0,
    }


def test_keys_of_what_was_stored_before_stand():
    assert json.loads(Decoding().text).keys() == {
        "kind",
        "budget",
        "max_nodes",
        "max_depth",
        "temperature",
        "n",
        "seed",
        "max_tokens",
    }
    assert dataclasses.replace(Decoding(), endpoint="completions").text != Decoding().text
    assert json.loads(Decoding(relative=0.01).text)["relative"] == 0.01


def test_other_draws_do_not_take_the_place_of_the_trees(toy, fake):
    draw(fake, tasks=list(drawn.TASKS_DRAWN), prompts=PROBE, n=10, max_tokens=12)
    with pytest.raises(CrystalError, match="100 of 100 cells were not drawn"):
        drawn.load_draws(
            "toy", checkpoints=["sft"], decoding=Decoding(kind="draws", n=10, max_tokens=12)
        )


# -- which checkpoint is it


def test_the_served_folder_is_compared_with_the_ladder(toy, fake):
    ladder = ladders.load_ladder("toy")
    folder = ladder.checkpoint("dpo").source
    assert drawing.identify(ladder, folder, None, []) == (
        ladder.checkpoint("dpo"),
        "weights' sha256",
    )
    assert (
        drawing.identify(ladder, "alias", "dpo", [{"id": "alias", "root": str(toy / folder)}])[1]
        == "weights' sha256"
    )
    with pytest.raises(CrystalError, match="by its weights' sha256 .* is dpo of toy, not sft"):
        drawing.identify(ladder, folder, "sft", [])
    (toy / folder / "model.safetensors").write_text("other")
    with pytest.raises(CrystalError, match="is none of its checkpoints of toy"):
        drawing.identify(ladder, folder, None, [])
    assert drawing.identify(ladder, "alias", "sft", []) == (ladder.checkpoint("sft"), "unchecked")
    with pytest.raises(
        CrystalError, match="nothing tells which checkpoint of toy 'alias' is.*--checkpoint base"
    ):
        drawing.identify(ladder, "alias", None, [])


def test_hub_ids_are_compared_with_the_ladder(toy):
    path = toy / "data/ladders/toy.yaml"
    raw = yaml.safe_load(path.read_text())
    for checkpoint, source, digit in zip(
        raw["checkpoints"], ("lab/base", "lab/sft", "lab/dpo", "lab/final"), "abcd", strict=True
    ):
        checkpoint |= {"source": source, "revision": digit * 40}
    path.write_text(yaml.safe_dump(raw))
    ladder = ladders.load_ladder("toy")
    assert drawing.identify(ladder, "lab/dpo", None, []) == (ladder.checkpoint("dpo"), "hub id")
    assert drawing.identify(ladder, f"lab/sft@{'b' * 40}", None, []) == (
        ladder.checkpoint("sft"),
        "commit",
    )
    cached = {"id": "x", "root": f"hub/models--lab--base/snapshots/{'a' * 40}"}
    assert drawing.identify(ladder, "x", None, [cached]) == (ladder.checkpoint("base"), "commit")
    for wrong in "lab/other", f"lab/sft@{'e' * 40}":
        with pytest.raises(CrystalError, match="is none of its checkpoints"):
            drawing.identify(ladder, wrong, "sft", [])


# -- the command, and the table


def test_the_command_draws_and_writes_the_table(toy, fake, capsys):
    for checkpoint in STAGES:
        fake.model = ladders.load_ladder("toy").checkpoint(checkpoint).source
        done = [
            "draw",
            "toy",
            "--server",
            fake.url,
            "--model",
            fake.model,
            "--tasks",
            "digit",
            "--n",
            "50",
        ]
        assert main([*done, "--prompts", "00-log", "07-story"]) == 0
        assert f"is checkpoint {checkpoint} of toy (weights' sha256); " in capsys.readouterr().out
    assert main(["draw", "toy", "--out", str(toy / "table.csv")]) == 0
    assert "88 rows, 400 answers to 1 tasks by 4 stages of toy" in capsys.readouterr().out
    lines = (toy / "table.csv").read_text().splitlines()
    assert lines[0] == ",".join(drawn.COLUMNS) and len(lines) == 1 + 4 * 2 * 11
    assert [path.name for path in toy.glob(".*")] == []
    frame = drawn.counts("toy")
    texts = Counter()
    for row in drawn.read("toy").to_pylist():
        texts += Counter(dict(zip(row["texts"], row["counts"])))
    summed = frame.groupby("option")["count"].sum()
    assert (summed["7"], summed["3"], summed[""], summed["5"]) == (
        texts[" 7"],
        texts[" 3, sure.\n"],
        texts["?"],
        0,
    )
    assert list(frame["stage"].unique()) == list(STAGES) and {*frame["cluster"]} == {
        PERSONAS[0],
        PERSONAS[7],
    }


def test_the_table_says_what_is_wrong(toy, fake, tmp_path):
    with pytest.raises(
        CrystalError,
        match="no draws of toy's closed tasks.*crystal draw toy --server URL --model NAME",
    ):
        drawn.counts("toy")
    draw(fake, tasks=["coin"])
    for place, said in (
        ("a.txt", "unknown ending of a table"),
        ("no/a.csv", "could not be written.*Hint: mkdir -p"),
    ):
        with pytest.raises(CrystalError, match=said):
            write(drawn.counts("toy").to_dict("records"), tmp_path / place)


def test_the_command_asks_for_what_it_lacks(toy, fake, capsys, monkeypatch):
    monkeypatch.setenv("CRYSTAL_SERVER", fake.url)
    assert main(["draw", "toy", "--server", fake.url]) == 2
    assert "which model? The server lists served" in capsys.readouterr().err
    assert main(["draw", "toy", "--model", "served"]) == 2
    assert "nothing tells which checkpoint" in capsys.readouterr().err
    assert main(["draw", "toy", "--model", "served", "--checkpoint", "sft", "--n", "0"]) == 2
    assert "not a whole number of 1 or more" in capsys.readouterr().err
    assert main(["draw", "toy", "--max-tokens", "3"]) == 2
    assert "--max-tokens is for draws from a server" in capsys.readouterr().err


def test_a_read_out_is_not_touched(toy, fake):
    draw(fake, tasks=["coin"])
    assert store.verify("toy").cells == 0
