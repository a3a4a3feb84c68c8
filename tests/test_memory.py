"""Less memory than the work wants: the same answers from smaller pieces."""

from __future__ import annotations

import weakref

import accelerate
import pytest
import synthetic
import tiny
import torch
import yaml
from transformers import AutoModelForCausalLM

from crystal.ask import ladders
from crystal.ask.prompts import PROMPTS
from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.keep import resample
from crystal.read import engine
from crystal.read.engine import Engine, build, load
from crystal.read.readout import readout
from crystal.read.sampling import draw_many

FULL = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
    ),
}


@pytest.fixture(scope="module", params=["llama", "mamba"])
def whole(request: pytest.FixtureRequest) -> Engine:
    """One architecture of each tree, ragged and whole."""
    tokenizer = tiny.trained_tokenizer()
    return build(tiny.model(request.param, len(tokenizer), sharpness=6.0), tokenizer)


def narrow(
    whole: Engine, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception
) -> list[int]:
    """Let memory end at `most` token positions per forward; returns the sizes tried."""
    tried, forward = [], Engine.forward

    def limited(self: Engine, ids: torch.Tensor, **kwargs) -> torch.Tensor:
        tried.append(ids.numel())
        if ids.numel() > most:
            raise error
        return forward(self, ids, **kwargs)

    monkeypatch.setattr(Engine, "forward", limited)
    monkeypatch.setattr(whole, "batch", 32)
    monkeypatch.setattr(whole, "chunk", 1024)
    return tried


@pytest.mark.parametrize("where", FULL)
def test_the_same_answers_from_less_memory(
    whole: Engine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    prompts = [
        whole.encode(prompt.text(TASKS["suit"], "completion"), "completion")
        for prompt in PROMPTS[:13]
    ]
    asked = {"tolerance": 0.02, "max_nodes": 200}
    want = readout(whole, prompts, TASKS["suit"], **asked)
    words = draw_many(whole, prompts, 50, seed=1, max_tokens=3)
    tried = narrow(whole, monkeypatch, 150, FULL[where])
    got = readout(whole, prompts, TASKS["suit"], **asked)
    assert whole.batch < 13 and whole.chunk < 1024 and max(tried) > 150
    for a, b in zip(want, got, strict=True):
        assert abs(a.options - b.options).max() < 1e-6 and a.tokens == b.tokens
    refused = sum(n > 150 for n in tried)
    assert readout(whole, prompts, TASKS["suit"], **asked)[3].tokens == want[3].tokens
    assert sum(n > 150 for n in tried) == refused, "what did not fit is tried again and again"
    assert draw_many(whole, prompts, 50, seed=1, max_tokens=3) == words


def test_a_prompt_that_does_not_fit_at_all_is_a_sentence(
    whole: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(whole, monkeypatch, 0, FULL["cuda"])
    with pytest.raises(CrystalError, match="not even one prompt fits into memory.*--device auto"):
        readout(whole, [whole.encode("A coin:", "completion")], TASKS["coin"])


def test_other_errors_are_not_taken_for_want_of_memory(
    whole: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = narrow(whole, monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        readout(whole, [whole.encode("A coin:", "completion")], TASKS["coin"])
    assert len(tried) == 1 and not engine.lacking(ValueError("x"))


def test_a_checkpoint_is_gone_before_the_next_is_loaded(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    synthetic.write_ladder(tmp_path, "small", {checkpoint: {} for checkpoint in ladders.STAGES})
    path = tmp_path / "data/ladders/small.yaml"
    raw = yaml.safe_load(path.read_text())
    for number, checkpoint in enumerate(raw["checkpoints"]):
        checkpoint["revision"] = ladders.weights_sha256(
            tiny.save(tmp_path / checkpoint["source"], seed=number, sharpness=8.0)
        )
        checkpoint["grid"] = "probe"
    path.write_text(yaml.safe_dump(raw))
    loaded, alive, real = [], [], engine.load_checkpoint

    def watched(checkpoint, **how):
        alive.append(sum(model() is not None for model in loaded))
        machine = real(checkpoint, **how)
        loaded.append(weakref.ref(machine.model))
        return machine

    monkeypatch.setattr(engine, "load_checkpoint", watched)
    synthetic.coarse(monkeypatch, 0.01)
    assert len(resample.resample("small", tasks=["coin"], device="cpu")) == 4
    assert alive == [0, 0, 0, 0] and not any(model() for model in loaded)


@pytest.mark.parametrize(
    ("gpus", "device", "asked"),
    [
        (0, None, None),
        (1, None, None),
        (2, None, "auto"),
        (2, "cpu", None),
        (0, "auto", "auto"),
    ],
)
def test_weights_are_spread_over_several_gpus(
    tmp_path, monkeypatch: pytest.MonkeyPatch, gpus: int, device: str, asked: str
):
    """Which map is asked for. Without a GPU all lands on the processor."""
    maps, real = [], AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *place, **how: maps.append(how.get("device_map")) or real(*place, **how),
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    found = load(tiny.save(tmp_path), device=device)
    assert maps == [asked] and found.device.type == "cpu"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_weights_that_are_elsewhere_give_the_same_numbers(kind: str) -> None:
    """accelerate's hooks, as between GPUs; the weights lie on no device."""
    tokenizer = tiny.trained_tokenizer()
    machine = build(tiny.model(kind, len(tokenizer), sharpness=6.0), tokenizer)
    prompts = [machine.encode(text, "completion") for text in ("A suit of cards:", "Suit =")]
    want = readout(machine, prompts, TASKS["suit"], tolerance=0.01)
    accelerate.cpu_offload(machine.model, execution_device=torch.device("cpu"))
    assert next(machine.model.parameters()).device.type == "meta" and machine.device.type == "cpu"
    for a, b in zip(want, readout(machine, prompts, TASKS["suit"], tolerance=0.01), strict=True):
        assert abs(a.options - b.options).max() < 1e-6 and abs(a.invalid - b.invalid) < 1e-6
