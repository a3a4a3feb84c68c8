"""What any read-out costs at least: operations and bytes of published shapes, fewest tokens.

Numbers only, loads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """Sizes of a Llama-like model, as its config.json names them."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int


SHAPES = {
    "llama-3.1-8b": Shape(128256, 4096, 14336, 32, 32, 8, 128),  # and so every Tülu 3 8B
    "olmo-2-7b": Shape(100352, 4096, 11008, 32, 32, 32, 128),
}
PROMPT = -1  # in place of a parent
PRICES = np.geomspace(1e-9, 1, 190)  # of a token, in probability; finer prices hardly raise a bound


def weights(shape: Shape) -> int:
    """Weights that a forward multiplies with: neither the embedding nor the norms."""
    heads = 2 * shape.num_attention_heads + 2 * shape.num_key_value_heads
    attention = shape.hidden_size * shape.head_dim * heads
    inner = 3 * shape.hidden_size * shape.intermediate_size
    return shape.num_hidden_layers * (attention + inner) + shape.hidden_size * shape.vocab_size


def operations(shape: Shape) -> int:
    """Floating-point operations of a token whose logits are wanted; attention is left out."""
    return 2 * weights(shape)


def forward_bytes(shape: Shape) -> int:
    """Bytes that every forward in bfloat16 must read, however few its tokens: each weight once."""
    return 2 * weights(shape)


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


def fewest_nodes(tree: Tree, tolerance: float) -> np.ndarray:
    """No fewer nodes leave `tolerance` open, (prompts,).

    By a price on nodes: whoever decides R = open - tolerance with n nodes gains R - price n, at
    most the largest gain of any set of nodes that holds its nodes' parents; on a tree that is a sum
    from the leaves up. So n is at least (R - largest gain) / price, at every price.
    """
    needed, best = tree.open - tolerance, np.zeros(len(tree.open))
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
