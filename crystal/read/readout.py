"""The read-out: the exact distribution of a checkpoint's answer to a closed task, nothing drawn.

It is that of ancestral sampling, nothing truncated, read by `crystal.ask.tasks.read`, summed over
every tokenization. The tree of tokens whose answer is still open is walked from its most probable
nodes on; what is too small to matter is left `residual`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..ask.tasks import Task
from ..errors import CrystalError
from .automaton import START, Row, Table, spans
from .engine import Engine
from .tree import ROOT, Prompts

TOLERANCE, RELATIVE = 1e-4, 0.01  # where neither is named
LEADS = 16  # nodes that hold only LEAD are computed as often as all others, and this many besides
MARGIN = 0.1  # of the tolerance, spent to spare small forwards: 1-2 % more tokens in 10-16 % fewer
BLOCK = 256  # tokens of a vocabulary whose weights are summed in the logits' own precision


@dataclass(frozen=True)
class Readout:
    """Probabilities of one cell; options + invalid + residual = 1 within 1e-6.

    An option's true probability lies in [options, options + residual].
    """

    options: np.ndarray  # (K,) float64, in the task's order; not renormalised
    invalid: float  # decided, and no option
    residual: float  # not expanded; above the tolerance only where a limit or LEADS said stop
    tokens: int  # token positions this cell needs: its prompt and every node of its tree

    @property
    def answered(self) -> float:
        return float(self.options.sum())


@dataclass(frozen=True)
class Nodes:
    """Tokens behind which the answer is open; all arrays (n,)."""

    owner: np.ndarray  # the prompt
    parent: np.ndarray  # number of the node above, or ROOT
    depth: np.ndarray  # tokens from the prompt to here
    token: np.ndarray
    state: np.ndarray
    mass: np.ndarray  # probability of the whole path

    def __getitem__(self, which: np.ndarray) -> Nodes:
        return Nodes(*(column[which] for column in vars(self).values()))

    def __len__(self) -> int:
        return len(self.owner)


def readout(
    engine: Engine,
    prompts: Prompts,
    task: Task,
    *,
    tolerance: float | None = None,
    relative: float | None = None,
    max_nodes: int = 20_000,
    max_depth: int = 12,
    temperature: float = 1.0,
) -> list[Readout]:
    """Read the answers to `prompts` (token ids, see `Engine.encode`).

    tolerance, relative: a prompt may leave this much residual, or this share of what it has
    answered, whichever is more (1e-4 and 0.01; relative 0 where a tolerance is named).
    Where `relative` is above 0, white space, quotes and markup before an answer (LEAD) take at most
    LEADS nodes more than all else, and what is cut there does not count. max_nodes, max_depth:
    tokens below a prompt, and of an answer. temperature: divides the logits.
    Raises: CrystalError for an open task, a prompt longer than the context, logits that are nan.
    """
    if relative is None:
        relative = RELATIVE if tolerance is None else 0.0
    tolerance = TOLERANCE if tolerance is None else tolerance
    shares = ("tolerance", tolerance, "--tolerance 1e-4"), ("relative", relative, "0.01")
    for name, share, hint in shares:
        if not 0 <= share <= 1:
            raise CrystalError(f"{name} is a number from 0 to 1, not {share}", hint=hint)
    if not 0 < temperature < np.inf:
        what = f"a temperature is a positive number, not {temperature}"
        raise CrystalError(what, hint="1 is the model's own distribution")
    table = engine.table(task)
    how = {"tolerance": tolerance, "relative": relative, "max_nodes": max_nodes}

    def read(ids: Prompts, most: np.ndarray) -> list[Readout]:
        return Walk(engine, ids, table, max_depth=most, temperature=temperature, **how).run()

    return engine.in_parts(prompts, max_depth, read)


class Asked(NamedTuple):
    """What is asked of the next token of n nodes."""

    node: np.ndarray  # (m,) ranges low .. high of ranks, none empty
    low: np.ndarray
    high: np.ndarray
    code: np.ndarray  # what the range decides
    alive: np.ndarray  # (a,) nodes, and single ranks that leave the answer open
    rank: np.ndarray
    to: np.ndarray  # the state


# Nodes (n,), their numbers in the tree, what was asked of them, and its weights: `Walk._weights`.
Seen = tuple[Nodes, np.ndarray, Asked, torch.Tensor]


@dataclass
class Walk:
    """The walk of one batch of prompts.

    Of all that is open below a prompt, the smallest nodes that fit into the tolerance together
    wait; the others are computed. A queue that takes one most probable node at a time computes the
    same nodes, in more rounds. To save small rounds, `spare` of the tolerance is not used while
    more is open.
    """

    engine: Engine
    prompts: Prompts
    table: Table
    _: KW_ONLY
    tolerance: float | np.ndarray  # from the first round on of each prompt
    relative: float
    max_nodes: int
    max_depth: np.ndarray  # of each prompt
    temperature: float

    def __post_init__(self) -> None:
        size, order = len(self.prompts), self.table.vocabulary.order
        options = self.table.automaton.task.options
        self.tolerance = np.full(size, float(self.tolerance))
        self.spare = self.tolerance * MARGIN
        self.expanded, self.leads = np.zeros((2, size), np.int64)  # nodes computed; those in START
        self.led = np.zeros(size)  # what was cut in START
        self.classes = np.zeros((size, len(options) + 1))  # decided; the last column is OFF
        self.residual = np.zeros(size)  # left for good
        self.order = self.engine.there(np.pad(order, (0, -len(order) % BLOCK)))

    def run(self) -> list[Readout]:
        tree = self.engine.tree(self.prompts, self.max_depth - 1)
        size, zero = len(self.prompts), np.zeros(len(self.prompts), np.int64)
        level = Nodes(np.arange(size), zero, zero, zero, zero + START, np.ones(size))
        waiting, numbers = level[:0], np.full(size, ROOT)
        logits = iter([(slice(0, size), tree.roots)])
        while len(level):
            seen = [self._look(level[rows], numbers[rows], chunk) for rows, chunk in logits]
            found = [vars(part).values() for part in (waiting, *self._expand(seen))]
            found = Nodes(*map(np.concatenate, zip(*found)))
            self._allow()
            level, waiting = self._choose(self._trimmed(found))
            level = self._led(level) if self.relative else level
            self.expanded += self._count(level)
            numbers = tree.nodes + np.arange(len(level))
            logits = tree.grow(level.owner, level.parent, level.token)
        self.residual += self._mass(waiting)
        return [self._result(i) for i in range(size)]

    def _look(self, nodes: Nodes, numbers: np.ndarray, logits: torch.Tensor) -> Seen:
        """What is to be known of their next token; a GPU may still compute it."""
        states, which = np.unique(nodes.state, return_inverse=True)
        rows = [self.table.row(s) for s in states.tolist()]
        ranges = _per_node(rows, which, ("low", "high", "code"))
        asked = Asked(*ranges, *_per_node(rows, which, ("live", "to")))
        return nodes, numbers, asked, self._weights(logits, asked)

    @torch.inference_mode()
    def _weights(self, logits: torch.Tensor, asked: Asked) -> torch.Tensor:
        """Weights of next tokens, a row's largest being 1: (n + m + a,) float64, on the device.

        All of each node, each range, each single rank. A range is right to some 1e-7 of its blocks.
        """
        there, width = self.engine.there, len(self.order)
        weight = logits.index_select(1, self.order)
        weight -= weight.amax(-1, keepdim=True)
        if self.temperature != 1:
            weight /= self.temperature
        weight.exp_()
        weight[:, logits.shape[1] :] = 0  # what fills up the last block
        alive = weight.flatten().index_select(0, there(asked.alive * width + asked.rank)).double()
        inside = weight.unflatten(1, (-1, BLOCK)).cumsum_(-1)
        blocks = torch.nn.functional.pad(inside[..., -1].double().cumsum(-1), (1, 0))
        inside, count = inside.flatten(), blocks.shape[1]

        def below(rank: np.ndarray) -> torch.Tensor:
            """Of all ranks below these, each of which is 1 or more."""
            block = there(asked.node * count + (rank - 1) // BLOCK)
            before = blocks.flatten().index_select(0, block)
            return before.add_(inside.index_select(0, there(asked.node * width + rank - 1)))

        first = there(np.where(asked.low > 0, 1.0, 0.0))
        ranges = below(asked.high) - below(np.maximum(asked.low, 1)) * first
        return torch.cat([blocks[:, -1], ranges, alive])

    def _expand(self, seen: Sequence[Seen]) -> list[Nodes]:
        """Add what the next token decides to `classes`; the children that stay open.

        Waits for the device, once.
        """
        *_, weights = zip(*seen, strict=True)
        values, children = torch.cat(weights).cpu().numpy(), []
        ends = np.cumsum([len(part) for part in weights])[:-1]
        for (nodes, numbers, asked, _), mine in zip(seen, np.split(values, ends), strict=True):
            n, m = len(nodes), len(asked.node)
            total, decided, alive = np.split(mine, [n, n + m])
            if not np.isfinite(total).all():
                hint, where = "make verify, or a wider --dtype", self.engine.source
                raise CrystalError("the logits are not numbers", where=where, hint=hint)
            share = nodes.mass / total
            owner, width = nodes.owner[asked.node], self.classes.shape[1]
            # code -1 (OFF) is column K, code -2 - k is column k
            place = owner * width + np.where(asked.code == -1, width - 1, -2 - asked.code)
            decided = np.bincount(place, decided * share[asked.node], self.classes.size)
            self.classes += decided.reshape(self.classes.shape)
            above, mass = nodes[asked.alive], alive * share[asked.alive]
            number, token = numbers[asked.alive], self.table.vocabulary.order[asked.rank]
            children.append(Nodes(above.owner, number, above.depth + 1, token, asked.to, mass))
        return children

    def _allow(self) -> None:
        """Let the tolerance of each prompt grow with what it has answered."""
        grown = np.maximum(self.relative * self.classes[:, :-1].sum(1), self.tolerance)
        self.spare += (grown - self.tolerance) * MARGIN
        self.tolerance = grown

    def _led(self, nodes: Nodes) -> Nodes:
        """Leave for good the smallest nodes in START, beyond LEADS and as many as all others."""
        lead = np.flatnonzero(nodes.state == START)
        count = self._count(nodes[lead])
        others = self.expanded - self.leads + self._count(nodes) - count
        order = lead[np.lexsort((-nodes.mass[lead], nodes.owner[lead]))]  # a prompt's largest first
        owner = nodes.owner[order]
        place = np.arange(len(order)) - (np.cumsum(count) - count)[owner]
        cut = order[place >= (others + LEADS - self.leads)[owner]]
        self.led += self._mass(nodes[cut])
        self.residual += self._mass(nodes[cut])
        self.leads += count - self._count(nodes[cut])
        return nodes[np.delete(np.arange(len(nodes)), cut)]

    def _trimmed(self, nodes: Nodes) -> Nodes:
        """Leave for good what is too deep, or needs at most a hundredth of what is to spare."""
        deep = nodes.depth >= self.max_depth[nodes.owner]
        many = self._count(nodes)[nodes.owner]
        small = ~deep & (nodes.mass * many <= self.spare[nodes.owner] / 100)
        self.spare -= self._mass(nodes[small])
        self.residual += self._mass(nodes[deep | small])
        return nodes[~(deep | small)]

    def _choose(self, nodes: Nodes) -> tuple[Nodes, Nodes]:
        """Those to be computed now, ordered by prompt, and those that wait."""
        lost, open_ = self.residual - self.led, self._mass(nodes)
        # cut by depth: a tolerance that can no longer be kept must not drive the walk
        lost = np.where(lost > self.tolerance, 0, lost)
        done = (lost + open_ <= self.tolerance) | (self.expanded >= self.max_nodes)
        self.residual += self._mass(nodes[done[nodes.owner]])
        nodes = nodes[~done[nodes.owner]]
        nodes = nodes[np.lexsort((nodes.mass, nodes.owner))]
        owner, count = nodes.owner, self._count(nodes)
        end, upto = np.cumsum(count), np.concatenate([[0.0], np.cumsum(nodes.mass)])
        # what is open may yet be answered, and the tolerance grow
        hoped = np.minimum(self.relative * (self.classes[:, :-1].sum(1) + open_), open_ / 8)
        allowed = np.maximum(np.maximum(self.tolerance - self.spare - lost, 0), hoped)
        waits = upto[1:] - upto[end - count][owner] <= allowed[owner]
        from_top = end[owner] - np.arange(len(owner))  # 1 = the prompt's largest
        waits |= from_top > (self.max_nodes - self.expanded)[owner]
        return nodes[~waits], nodes[waits]

    def _count(self, nodes: Nodes) -> np.ndarray:
        return np.bincount(nodes.owner, minlength=len(self.prompts))

    def _mass(self, nodes: Nodes) -> np.ndarray:
        return np.bincount(nodes.owner, nodes.mass, len(self.prompts))

    def _result(self, i: int) -> Readout:
        classes, residual = self.classes[i], self.residual[i]
        tokens = len(self.prompts[i]) + int(self.expanded[i])
        if not abs((total := classes.sum() + residual) - 1) <= 1e-6:
            what = f"the read-out sums to {total}, not 1: the logits are broken"
            hint = "check the weights (make verify) and the dtype"
            raise CrystalError(what, where=self.engine.source, hint=hint)
        return Readout(classes[:-1], float(classes[-1]), float(residual), tokens)


def _per_node(rows: list[Row], which: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
    """The states' rows node by node: node of each entry (m,), and the entries of named columns."""
    count = np.array([len(getattr(row, names[0])) for row in rows])
    entry = spans((np.cumsum(count) - count)[which], count[which])
    columns = [np.concatenate([getattr(row, name) for row in rows])[entry] for name in names]
    return [np.repeat(np.arange(len(which)), count[which]), *columns]
