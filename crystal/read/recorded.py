"""Walks that keep the tree they saw, and what `crystal.read.least` says of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ask.tasks import Task
from .automaton import START
from .engine import Engine
from .least import PROMPT, Tree, fewest_nodes
from .memory import in_parts
from .readout import Nodes, Seen, Walk, joined
from .tree import ROOT


def nodes_needed(
    engine: Engine, prompts: Sequence[tuple[int, ...]], task: Task, *, budget: float = 1e-4, max_nodes: int = 20_000,
    max_depth: int = 12,
) -> np.ndarray:
    """No read-out of a prompt that leaves `budget` computes fewer tokens behind it, (prompts,).

    Costs a read-out; arguments and errors as there (`crystal.read.readout.readout`), as far as there are the same.
    """
    def bounds(part: Sequence[tuple[int, ...]]) -> list[int]:
        walk = Recorded(engine, part, engine.table(task), budget=budget, relative=0, margin=0, max_nodes=max_nodes,
                        max_depth=[min(max_depth, engine.room(ids)) for ids in part], temperature=1.0)
        walk.run(np.full(len(part), START))
        return fewest_nodes(walk.tree(), budget).tolist()

    return np.array(in_parts(engine, list(prompts), bounds))


class Recorded(Walk):
    """A walk that keeps what it saw."""

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.seen: list[tuple[Nodes, np.ndarray, Nodes]] = []  # nodes, their numbers, their open children

    def _expand(self, seen: Sequence[Seen]) -> list[Nodes]:
        children = super()._expand(seen)
        self.seen += [(s.nodes, s.numbers, below) for s, below in zip(seen, children, strict=True)]
        return children

    def tree(self) -> Tree:
        """Once it has run."""
        prompts = len(self.prompts)
        (_, _, first), *rest = self.seen  # one chunk holds the logits behind all prompts
        nodes = joined([first[:0], *(nodes for nodes, *_ in rest)])  # in the order of their numbers
        assert all(np.array_equal(np.diff(numbers), np.ones(len(numbers) - 1)) for _, numbers, _ in rest)
        below = joined([children for *_, children in self.seen])
        inner = below[below.parent != ROOT]
        kept = np.bincount(inner.parent, inner.mass, len(nodes))
        leaf = ~np.isin(_key(below, prompts), _key(nodes, prompts))
        return Tree(
            open=np.bincount(first.owner, first.mass, prompts), owner=nodes.owner, parent=_above(nodes), depth=nodes.depth,
            decided=nodes.mass - kept, leaf_owner=below.owner[leaf], leaf_parent=_above(below[leaf]),
            leaf_mass=below.mass[leaf])


def _above(nodes: Nodes) -> np.ndarray:
    return np.where(nodes.parent == ROOT, PROMPT, nodes.parent)


def _key(nodes: Nodes, prompts: int) -> np.ndarray:
    """One number a node: below which node, or prompt, by which token."""
    above = np.where(nodes.parent == ROOT, nodes.owner, nodes.parent + prompts)
    return above * 2**32 + nodes.token
