"""The fewest tokens from which anybody could know a law up to a budget: a bound from below, found on a tree that was walked.

To know all but the budget means to compute tokens, each only below one that is computed, until what they leave open is no more
than the budget. A walk does not know beforehand what a token will decide, so it computes some that decide nothing; here that is
known. Numbers only: `crystal.read.recorded` walks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PROMPT = -1  # in place of a parent
PRICES = np.geomspace(1e-9, 1, 190)  # of a token, in probability; a list 16 times as fine raised bounds by less than a thousandth


@dataclass(frozen=True)
class Tree:
    """What a walk saw below each of its prompts; nodes are numbered, parents first, and PROMPT stands for the prompt."""

    open: np.ndarray  # (prompts,) probability that is open right behind the prompt
    owner: np.ndarray  # (nodes,) the prompt
    parent: np.ndarray  # (nodes,)
    depth: np.ndarray  # (nodes,) from 1
    decided: np.ndarray  # (nodes,) probability that computing the node decides
    leaf_owner: np.ndarray  # (leaves,) open when the walk ended
    leaf_parent: np.ndarray  # (leaves,)
    leaf_mass: np.ndarray  # (leaves,) at most this is decided by computing it and one that costs as much


def fewest_nodes(tree: Tree, budget: float) -> np.ndarray:
    """No fewer nodes leave `budget` open, (prompts,).

    By a price on nodes: whoever decides R = open - budget with n nodes gains R - price n, which is at most the largest gain of
    any set of nodes that holds its nodes' parents; on a tree that largest gain is a sum from the leaves up. So n is at least
    (R - largest gain) / price, at every price.
    """
    needed, best = tree.open - budget, np.zeros(len(tree.open))
    for price in PRICES:
        best = np.maximum(best, (needed - _largest_gain(tree, price)) / price)
    return np.ceil(best - 1e-3).astype(int)  # rounding, over the smallest price, is no node


def _largest_gain(tree: Tree, price: float) -> np.ndarray:
    """Over sets of nodes that hold every node's parent: what they decide less their price, (prompts,)."""
    size, prompts = len(tree.owner), len(tree.open)
    gain = np.concatenate([tree.decided - price, np.zeros(prompts)])  # behind the nodes, the prompts themselves
    parent, leaf_parent = (np.where(p == PROMPT, size + o, p) for p, o in (
        (tree.parent, tree.owner), (tree.leaf_parent, tree.leaf_owner)))
    gain += np.bincount(leaf_parent, np.maximum(tree.leaf_mass - price, 0), size + prompts)
    for depth in range(int(tree.depth.max(initial=0)), 0, -1):
        at = np.flatnonzero(tree.depth == depth)
        gain += np.bincount(parent[at], np.maximum(gain[at], 0), size + prompts)
    return gain[size:]
