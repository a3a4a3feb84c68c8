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
        "cannot load",
    ),
    "an empty file": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot load"),
    "a pointer in place of weights": (
        lambda f: (f / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\n"
        ),
        "cannot load",
    ),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter"),
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
        "cannot load",
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
