"""Shapes of published checkpoints, and the two limits that they set to any read-out: operations and bytes.

The numbers are those of the checkpoints' own config.json. Loads nothing: a model of a shape is made by who needs one.
"""

from __future__ import annotations

from collections.abc import Mapping

Shape = Mapping[str, object]

SHAPES: dict[str, Shape] = {
    "llama-3.1-8b": {  # meta-llama/Llama-3.1-8B, and so every Tülu 3 8B
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False},
    "olmo-2-7b": {  # allenai/OLMo-2-1124-7B
        "model_type": "olmo2", "vocab_size": 100352, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False},
    "tiny": {  # of no checkpoint: for a machine without a GPU
        "model_type": "llama", "vocab_size": 4096, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False},
}


def weights(shape: Shape) -> int:
    """Weights that a forward multiplies with: all layers and the output layer, neither the embedding nor the norms."""
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    width = shape.get("head_dim", hidden // heads)
    attention = hidden * width * (2 * heads + 2 * shape["num_key_value_heads"])
    return shape["num_hidden_layers"] * (attention + 3 * hidden * shape["intermediate_size"]) + hidden * shape["vocab_size"]


def parameters(shape: Shape) -> int:
    """All weights but those of the norms: the embedding, too, which no product reads."""
    return weights(shape) + shape["hidden_size"] * shape["vocab_size"] * (not shape["tie_word_embeddings"])


def operations(shape: Shape, seen: int = 0) -> int:
    """Floating-point operations of one token position whose logits are wanted, with `seen` positions before it."""
    width = shape.get("head_dim", shape["hidden_size"] // shape["num_attention_heads"])
    return 2 * weights(shape) + 4 * shape["num_hidden_layers"] * shape["num_attention_heads"] * width * seen


def forward_bytes(shape: Shape, bytes_each: int = 2) -> int:
    """Bytes that every forward must read, however few its tokens: each weight once (two bytes each in bfloat16)."""
    return bytes_each * weights(shape)


def least_seconds(
    shape: Shape, tokens: int, forwards: int, flops: float, bandwidth: float, bytes_each: int = 2,
) -> tuple[float, float]:
    """(by operations, by bytes): no run of so many tokens in so many forwards is faster than the larger of the two.

    flops: operations a second; bandwidth: bytes a second. The two meet at flops / bandwidth tokens a forward, for weights of
    two bytes.
    """
    return tokens * operations(shape) / flops, forwards * forward_bytes(shape, bytes_each) / bandwidth
