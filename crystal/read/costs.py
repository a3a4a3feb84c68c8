"""What any read-out costs at least: operations and bytes of published shapes, fewest tokens.

Numbers only, loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Shape = Mapping[str, object]
_NAMES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
_NAMES += ("num_attention_heads", "num_key_value_heads", "max_position_embeddings")


def _shape(kind: str, *sizes: int, **more: object) -> Shape:
    sizes = dict(zip(_NAMES, sizes, strict=True))
    return {"model_type": kind, **sizes, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, **more}


SHAPES: dict[str, Shape] = {  # as in the checkpoints' own config.json
    # meta-llama/Llama-3.1-8B, and so every Tülu 3 8B
    "llama-3.1-8b": _shape("llama", 128256, 4096, 14336, 32, 32, 8, 131072, head_dim=128),
    # allenai/OLMo-2-1124-7B
    "olmo-2-7b": _shape("olmo2", 100352, 4096, 11008, 32, 32, 32, 4096, rms_norm_eps=1e-6),
    # of no checkpoint: for a machine without a GPU
    "tiny": _shape("llama", 4096, 64, 128, 2, 4, 2, 256, head_dim=16),
}
_SIZES = "hidden_size", "num_attention_heads", "num_hidden_layers"
PROMPT = -1  # in place of a parent
PRICES = np.geomspace(1e-9, 1, 190)  # of a token, in probability; finer prices hardly raise a bound


def weights(shape: Shape) -> int:
    """Weights that a forward multiplies with: neither the embedding nor the norms."""
    hidden, heads, layers = (shape[n] for n in _SIZES)
    width = shape.get("head_dim", hidden // heads)
    attention = hidden * width * (2 * heads + 2 * shape["num_key_value_heads"])
    inner = 3 * hidden * shape["intermediate_size"]
    return layers * (attention + inner) + hidden * shape["vocab_size"]


def parameters(shape: Shape) -> int:
    """All weights but those of the norms."""
    embedding = shape["hidden_size"] * shape["vocab_size"]
    return weights(shape) + embedding * (not shape["tie_word_embeddings"])


def operations(shape: Shape, seen: int = 0) -> int:
    """Floating-point operations of a token whose logits are wanted, behind `seen` positions."""
    hidden, heads, layers = (shape[n] for n in _SIZES)
    return 2 * weights(shape) + 4 * layers * heads * shape.get("head_dim", hidden // heads) * seen


def forward_bytes(shape: Shape, bytes_each: int = 2) -> int:
    """Bytes that every forward must read, however few its tokens: each weight once."""
    return bytes_each * weights(shape)


@dataclass(frozen=True)
class Tree:
    """What a walk saw; nodes are numbered, parents first, and PROMPT stands for the prompt."""

    open: np.ndarray  # (prompts,) probability that is open right behind the prompt
    owner: np.ndarray  # (nodes,) the prompt
    parent: np.ndarray  # (nodes,)
    depth: np.ndarray  # (nodes,) from 1
    decided: np.ndarray  # (nodes,) probability that computing the node decides
    leaf_owner: np.ndarray  # (leaves,) open when the walk ended
    leaf_parent: np.ndarray  # (leaves,)
    leaf_mass: np.ndarray  # (leaves,) computing a leaf decides at most this


def fewest_nodes(tree: Tree, budget: float) -> np.ndarray:
    """No fewer nodes leave `budget` open, (prompts,).

    By a price on nodes: whoever decides R = open - budget with n nodes gains R - price n, at most
    the largest gain of any set of nodes that holds its nodes' parents; on a tree that is a sum from
    the leaves up. So n is at least (R - largest gain) / price, at every price.
    """
    needed, best = tree.open - budget, np.zeros(len(tree.open))
    for price in PRICES:
        best = np.maximum(best, (needed - _largest_gain(tree, price)) / price)
    return np.ceil(best - 1e-3).astype(int)  # rounding, over the smallest price, is no node


def _largest_gain(tree: Tree, price: float) -> np.ndarray:
    """Over sets that hold every node's parent: what they decide less their price, (prompts,)."""
    size, prompts = len(tree.owner), len(tree.open)
    gain = np.concatenate([tree.decided - price, np.zeros(prompts)])  # the nodes, then the prompts
    parent = np.where(tree.parent == PROMPT, size + tree.owner, tree.parent)
    leaf_parent = np.where(tree.leaf_parent == PROMPT, size + tree.leaf_owner, tree.leaf_parent)
    gain += np.bincount(leaf_parent, np.maximum(tree.leaf_mass - price, 0), size + prompts)
    for depth in range(int(tree.depth.max(initial=0)), 0, -1):
        at = np.flatnonzero(tree.depth == depth)
        gain += np.bincount(parent[at], np.maximum(gain[at], 0), size + prompts)
    return gain[size:]
