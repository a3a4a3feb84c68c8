"""Checkpoints that are damaged, odd or somebody else's: right, or refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.read import engine
from crystal.read.readout import readout

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("whole") / "model", "llama", seed=4)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def digits(folder: Path) -> np.ndarray:
    machine = engine.load(folder)
    return readout(
        machine, [machine.encode("A digit:", "completion")], TASKS["digit"], tolerance=1e-2
    )[0].options


def weights(folder: Path, change: Callable[[Weights], Weights]) -> None:
    file = folder / "model.safetensors"
    save_file(
        {name: tensor.clone() for name, tensor in change(load_file(file)).items()},
        file,
        {"format": "pt"},
    )


def configure(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


LAYER = "model.layers.1."
DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "names with a prefix": (
        lambda f: weights(f, lambda w: {f"_orig_mod.{name}": t for name, t in w.items()}),
        "they lack",
    ),
    "names of a wrapper": (
        lambda f: weights(f, lambda w: {f"module.{name}": t for name, t in w.items()}),
        "they lack",
    ),
    "one name misspelt": (
        lambda f: weights(
            f,
            lambda w: {
                name.replace("norm.weight", "norm.gamma")
                if name == "model.norm.weight"
                else name: t
                for name, t in w.items()
            },
        ),
        "model.norm.weight",
    ),
    "a lost head": (
        lambda f: weights(f, lambda w: {n: t for n, t in w.items() if n != "lm_head.weight"}),
        "lm_head.weight",
    ),
    "a lost embedding": (
        lambda f: weights(f, lambda w: {n: t for n, t in w.items() if "embed" not in n}),
        "embed_tokens",
    ),
    "a missing layer": (
        lambda f: weights(f, lambda w: {n: t for n, t in w.items() if not n.startswith(LAYER)}),
        "and 7 more",
    ),
    "a layer more than configured": (
        lambda f: configure(f, num_hidden_layers=1),
        "configuration does not know",
    ),
    "a layer fewer than configured": (lambda f: configure(f, num_hidden_layers=3), "they lack"),
    "another width": (lambda f: configure(f, intermediate_size=40), "shape"),
    "another vocabulary": (lambda f: configure(f, vocab_size=700), "shape"),
    "biases that are nobody's": (
        lambda f: weights(f, lambda w: w | {f"{LAYER}self_attn.q_proj.bias": torch.zeros(32)}),
        "bias",
    ),
    "not numbers": (
        lambda f: weights(f, lambda w: w | {"model.norm.weight": w["model.norm.weight"] / 0}),
        "not numbers",
    ),
    "integers in place of weights": (
        lambda f: weights(
            f, lambda w: {n: (t * 50).to(torch.int8) if "mlp" in n else t for n, t in w.items()}
        ),
        "I8",
    ),
    "half a file": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:5000]
        ),
        "model.safetensors). Hint: fetch",
    ),
    "an empty file": (lambda f: (f / "model.safetensors").write_bytes(b""), "is damaged"),
    "a pointer in place of weights": (
        lambda f: (f / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\n"
        ),
        "git lfs pull",
    ),
    "eight bits under names without a prefix": (
        lambda f: weights(
            f,
            lambda w: {
                n.removeprefix("model."): (t * 50).to(torch.int8) if "mlp" in n else t
                for n, t in w.items()
            },
        ),
        "I8",
    ),
    "eight bits under names of parts": (
        lambda f: weights(
            f, lambda w: w | {"model.layers.0.mlp.experts.0.w1.weight": torch.ones(2).char()}
        ),
        "configuration does not know",
    ),
    "a width that no file holds": (lambda f: configure(f, hidden_size=10**6), "width of 1000000"),
    "a vocabulary that no file holds": (lambda f: configure(f, vocab_size=10**8), "100000000 tok"),
    "layers that no file holds": (lambda f: configure(f, num_hidden_layers=10**7), "10000000 la"),
    "ends that are no tokens": (
        lambda f: (f / "generation_config.json").write_text(json.dumps({"eos_token_id": [[1], 2]})),
        "eos_token_id holds [1]",
    ),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter"),
    "an adapter alone": (
        lambda f: (
            (f / "adapter_config.json").write_text("{}"),
            weights(f, lambda w: {"lora_A.weight": torch.ones(2)}),
        ),
        "adapter",
    ),
    "no configuration": (lambda f: (f / "config.json").unlink(), "cannot load"),
    "a configuration that is no object": (
        lambda f: (f / "config.json").write_text("[]"),
        "cannot load",
    ),
    "an unknown architecture": (lambda f: configure(f, model_type="nonesuch"), "nonesuch"),
    "an encoder": (lambda f: configure(f, model_type="vit"), "cannot load"),
    "an unknown scheme of quantisation": (
        lambda f: configure(f, quantization_config={"quant_method": "nonesuch"}),
        "nonesuch",
    ),
    "a scheme without its library": (
        lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "cannot load",
    ),
    "an eight-bit scheme without its library": (
        lambda f: configure(
            f, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}
        ),
        "cannot load",
    ),
    "a listed shard that is not there": (
        lambda f: (
            (f / "model.safetensors").rename(f / "model-00001-of-00002.safetensors"),
            (f / "model.safetensors.index.json").write_text(
                json.dumps(
                    {
                        "metadata": {},
                        "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"},
                    }
                )
            ),
        ),
        "cannot be read",
    ),
    "heads that do not divide": (lambda f: configure(f, num_attention_heads=5), "cannot load"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_checkpoint_is_refused(kind: str, folder: Path) -> None:
    damage, said = DAMAGED[kind]
    damage(folder)
    with pytest.raises(CrystalError) as refused:
        digits(folder)
    assert said in str(refused.value) and "Hint:" in str(refused.value)


SOUND: dict[str, Callable[[Path], None]] = {
    "a buffer that old versions saved": lambda f: weights(
        f, lambda w: w | {f"{LAYER}self_attn.rotary_emb.inv_freq": torch.ones(4)}
    ),
    "integers in a file beside": lambda f: save_file(
        {"state.0.step": torch.ones(1).long()}, f / "optimizer.safetensors", {"format": "pt"}
    ),
    "a pointer in a file beside": lambda f: (f / "consolidated.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\n"
    ),
    "a part of another width": lambda f: configure(
        f, vision_config={"vocab_size": 49408, "hidden_size": 512, "num_hidden_layers": 99}
    ),
    "sixty-four bits": lambda f: weights(f, lambda w: {n: t.double() for n, t in w.items()}),
}


@pytest.mark.parametrize("kind", SOUND)
def test_what_changes_no_number_is_read(kind: str, folder: Path, whole: Path) -> None:
    SOUND[kind](folder)
    assert np.allclose(digits(folder), digits(whole), atol=1e-6)


def test_a_tied_head_may_be_absent(folder: Path) -> None:
    def tied(w: Weights) -> Weights:
        return {n: t for n, t in w.items() if n != "lm_head.weight"}

    head = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    weights(folder, lambda w: w | {"lm_head.weight": head})
    apart = digits(folder)
    configure(folder, tie_word_embeddings=True)
    weights(folder, tied)
    assert np.allclose(digits(folder), apart, atol=1e-6)


def test_shards_are_read_as_one_file(whole: Path, tmp_path: Path) -> None:
    cut = tiny.save(tmp_path / "cut", "llama", seed=4, shards="20KB")
    assert len(list(cut.glob("*.safetensors"))) > 1
    assert np.allclose(digits(cut), digits(whole), atol=1e-6)


def test_eight_bits_called_like_a_mask_are_refused(tmp_path: Path) -> None:
    """GPT-2's masks are `attn.bias`, and may be whole numbers; `c_attn.bias` may not."""
    made = tiny.save(tmp_path / "model", "gpt2", seed=1)
    before = digits(made)
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8).byte()}
    weights(made, lambda w: w | mask)
    assert np.allclose(digits(made), before)
    weights(made, lambda w: {n: t.char() if "c_attn.bias" in n else t for n, t in w.items()})
    with pytest.raises(CrystalError, match=r"c_attn.bias are stored as I8"):
        digits(made)


def test_eight_bits_of_the_hub_are_refused(tmp_path: Path, monkeypatch) -> None:
    """As in a folder: the files of a hub id lie in the cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = tiny.publish(tmp_path, "toys/llama")
    at = tiny.snapshot(tmp_path, "toys/llama", commit)
    weights(at, lambda w: {n: (t * 50).to(torch.int8) if "mlp" in n else t for n, t in w.items()})
    with pytest.raises(CrystalError, match="I8"):
        engine.load("toys/llama")


@pytest.mark.parametrize("device", ["cuda:9", "nope", "meta"])
def test_a_device_that_cannot_be_used_is_a_sentence(device: str, whole: Path) -> None:
    with pytest.raises(CrystalError, match=f"the device {device!r} cannot be used.*Hint"):
        engine.load(whole, device=device)


def test_a_context_by_another_name_is_kept(whole: Path) -> None:
    machine = engine.load(whole)
    machine.model.config.max_seq_len = 8  # as MPT's
    with pytest.raises(CrystalError, match="context holds 8"):
        machine.encode("A digit, and many more words:", "completion")


def test_a_model_that_fails_on_a_length_is_a_sentence(whole: Path) -> None:
    """As do those whose positions begin at another number than 0."""
    machine = engine.load(whole)
    monkey = torch.nn.Embedding(4, 4)
    machine.model.register_forward_pre_hook(lambda *_: monkey(torch.tensor([9])))
    with pytest.raises(CrystalError, match="the model fails on .* tokens: IndexError index out of"):
        readout(machine, [machine.encode("A digit:", "completion")], TASKS["digit"])


def test_longrope_reads_each_prompt_as_if_alone(tmp_path: Path) -> None:
    """A text beyond the first context changes the positions of all in its forward."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 8.0}
    made = tiny.save(tmp_path / "model", "llama", rope_parameters=rope)
    machine = engine.load(made)
    asked = [machine.encode(text, "completion") for text in ("A digit:", "A digit, " * 9 + ":")]
    assert len(asked[0]) < 16 < len(asked[1])
    how = {"task": TASKS["digit"], "tolerance": 1e-3}
    alone = [readout(machine, [ids], **how)[0].options for ids in asked]
    for together in (asked, asked[::-1]):
        found = dict(zip(together, readout(machine, together, **how), strict=True))
        for ids, mine in zip(asked, alone, strict=True):
            assert np.allclose(found[ids].options, mine, atol=1e-5)
    end = max(asked[0]), 3, 4  # a path that crosses over is read as the text that it is
    crossing = tuple([*asked[0], *end][:16])
    whole = machine.forward(torch.tensor([[*crossing, 5]]))[0, -1]
    tree = machine.tree([crossing], 2)
    ((_, logits),) = tree.grow(np.array([0]), np.array([-1]), np.array([5]))
    assert torch.allclose(logits[0], whole, atol=1e-4)


def test_an_encoder_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertLMHeadModel

    tokenizer = tiny.trained_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=1.0,
    )
    torch.manual_seed(0)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CrystalError, match="not causal"):
        engine.load(tmp_path)
