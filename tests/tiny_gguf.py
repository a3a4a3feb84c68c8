"""A tiny GGUF file, and wheels that hold it, whole or in parts."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import tiny
from gguf import GGUFWriter, LlamaFileType
from transformers import PreTrainedModel

from crystal.read.vocabulary import ALPHABET

NAMES = {
    "embed_tokens": "token_embd",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "lm_head": "output",
    "model.norm": "output_norm",
    "model.layers": "blk",
}


def write(
    path: Path,
    *,
    more: dict[str, np.ndarray] | None = None,
    keys: dict[str, float] | None = None,
    pre: str = "default",
    seed: int = 5,
) -> PreTrainedModel:
    """A tiny Llama in 32-bit floats; returns the model.

    more: tensors beside its own. keys: metadata. pre: how its tokenizer cuts before merging.
    """
    tokens = ["<s>", "</s>", *sorted(ALPHABET), "ab"]
    model = tiny.model("llama", len(tokens), seed=seed)
    config, out = model.config, GGUFWriter(path, "llama")
    out.add_name("tiny")
    out.add_license("none at all")
    out.add_file_type(LlamaFileType.ALL_F32)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_rope_dimension_count(config.head_dim)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_vocab_size(len(tokens))
    for key, value in (keys or {}).items():
        out.add_float32(key, value)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    out.add_token_merges(["a b"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    for name, weight in model.state_dict().items():
        out.add_tensor(_name(name), _cut(name, weight.numpy(), config))
    for name, array in (more or {}).items():
        out.add_tensor(name, array)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return model


def _name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name.removeprefix("model.")


def _cut(name: str, weight: np.ndarray, config) -> np.ndarray:
    """Rows of queries and keys as GGUF orders them: a head's halves interleaved."""
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}.get(
        name.rsplit("_proj", 1)[0][-1] if "_proj" in name and "self_attn" in name else ""
    )
    if heads is None:
        return weight
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def wheel(folder: Path, name: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> Path:
    """Write a wheel `name` 1.0 that holds `files`."""
    module = name.replace("-", "_")
    path, info = folder / f"{module}-1.0-py3-none-any.whl", f"{module}-1.0.dist-info"
    meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + "".join(
        f"Requires-Dist: {r}\n" for r in requires
    )
    content = {f"{module}/{file}": data for file, data in files.items()} | {
        f"{info}/METADATA": meta.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{file},sha256={_digest(data)},{len(data)}" for file, data in content.items()]
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in {
            **content,
            f"{info}/RECORD": "\n".join([*rows, f"{info}/RECORD,,"]).encode(),
        }.items():
            archive.writestr(file, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
