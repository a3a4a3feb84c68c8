"""The read-out: the exact distribution of a checkpoint's answer to a closed task, without drawing a single sample.

The law is that of ancestral sampling at temperature 1 with nothing truncated, read by `crystal.ask.tasks.read`, summed
over every tokenization. The tree of token prefixes whose answer is still open is walked from its most probable nodes on, many
at a time; what is too small to matter is left `unresolved`, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..ask.tasks import Task
from ..errors import CrystalError
from .automaton import START, Row, Table, spans
from .engine import Engine
from .masses import Asked, masses, padded
from .memory import in_parts
from .tree import ROOT

BUDGET, RELATIVE = 1e-4, 0.01  # where neither is named
LEADS = 16  # nodes that hold nothing but LEAD are computed as often as all others, and this many times besides
MARGIN = 0.1  # of the budget: on the bases of the nano ladders 1-2 % more tokens than without, in 10-16 % fewer forwards


@dataclass(frozen=True)
class Readout:
    """Probabilities of one cell; options + off_support + unresolved = 1 within 1e-6, each counted on its own.

    An option's true probability lies in [options, options + reach], whatever the unresolved answers would become.
    """

    options: np.ndarray  # (K,) float64, in the task's order; not renormalised
    off_support: float  # decided, and no option
    unresolved: float  # not expanded; above the tolerance only where max_nodes, max_depth, the context or LEADS said stop
    reach: np.ndarray  # (K,) how much of `unresolved` could still become the option
    tokens: int  # token positions this cell needs: its prompt and every node of its tree

    @property
    def answered(self) -> float:
        """Probability that the answer is any option."""
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
        return Nodes(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.owner)


def readout(
    engine: Engine, prompts: Sequence[tuple[int, ...]], task: Task, *,
    budget: float | None = None, relative: float | None = None, max_nodes: int = 20_000, max_depth: int = 12,
    batch: int | None = None, temperature: float = 1.0, begun: Sequence[int] | None = None, margin: float = MARGIN,
) -> list[Readout]:
    """Read the answers to `prompts` (token ids, see `Engine.encode`), `batch` prompts to a tree (None: the engine's), fewer
    where the memory is too small for so many.

    budget, relative: a prompt may leave this much probability unresolved, or this share of what it has answered, whichever is
    more (default: 1e-4 and 0.01; relative 0 where a budget is named). Where `relative` is above 0, white space, quotes and
    markup before an answer (LEAD) take at most LEADS nodes more than all else, and what is cut there does not count.
    max_nodes, max_depth: per prompt, tokens expanded below it and tokens an answer may take before
    it is given up; a flat model would otherwise never end. temperature: divides the logits of every
    token; 1 is the model's own law. begun: how many tokens at each prompt's end the answer holds
    already; the law is then of how it goes on. margin: share of the tolerance that is given away to
    spare small forwards.
    Raises: CrystalError for an open task, a prompt longer than the context, an answer that is begun and over, or logits that
    are no numbers.
    """
    relative = (RELATIVE if budget is None else 0.0) if relative is None else relative
    budget = BUDGET if budget is None else budget
    for name, share in (("budget", budget), ("relative", relative), ("margin", margin)):
        if not 0 <= share <= 1:
            raise CrystalError(f"{name} is a number from 0 to 1, not {share}", mend={"budget": "--budget 1e-4"}.get(name, "0.01"))
    if not 0 < temperature < np.inf:
        raise CrystalError(f"a temperature is a positive number, not {temperature}", mend="1 is the model's own law")
    table = engine.table(task)
    depths = [min(max_depth, engine.room(ids)) for ids in prompts]
    states = [_state(engine, table, ids[len(ids) - n :]) for ids, n in zip(prompts, begun or [0] * len(prompts))]

    def read(part: Sequence[tuple[tuple[int, ...], int, int]]) -> list[Readout]:
        ids, begin, deepest = zip(*part)
        walk = Walk(engine, ids, table, budget=budget, relative=relative, margin=margin, max_nodes=max_nodes,
                    max_depth=deepest, temperature=temperature)
        return walk.run(np.array(begin, int))

    return in_parts(engine, list(zip(prompts, states, depths, strict=True)), read, batch)


def _state(engine: Engine, table: Table, tokens: Sequence[int]) -> int:
    """Where an answer stands after its first tokens."""
    state = START
    for token in tokens:
        state = int(table.follow(np.array([state]), engine.vocabulary.rank[[token]])[0])
        if state < 0:
            raise CrystalError(f"the answer is over after {engine.tokenizer.decode(list(tokens))!r}", mend="begin it with less")
    return state


@dataclass(frozen=True)
class Seen:
    """Nodes, and what was asked of their next token: of `m` ranges of ranks that decide, of `a` ranks that leave it open."""

    nodes: Nodes  # (n,)
    numbers: np.ndarray  # (n,) in the tree
    values: torch.Tensor  # (n + m + a,) weights, see `masses`
    node: np.ndarray  # (m,) which of the n
    code: np.ndarray  # (m,) what the range decides
    alive: np.ndarray  # (a,) which of the n
    token: np.ndarray  # (a,)
    to: np.ndarray  # (a,) the state

    def shares(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fetched `values` -> all weights of a node (n,); the probability of the path and each range (m,), each rank (a,)."""
        n, m = len(self.nodes), len(self.node)
        total, decided, alive = np.split(values, [n, n + m])
        share = self.nodes.mass / total
        return total, decided * share[self.node], alive * share[self.alive]


class Walk:
    """The walk of one batch of prompts. `classes` (prompts, K + 1): mass decided so far, the last column is OFF.

    Of all that is open below a prompt, the smallest nodes that fit into the budget together wait; the others are computed.
    Any of these would be computed, too, by a queue that takes the most probable open node, one at a time, until no more than
    the budget is open: the queue comes to a smaller one first only when all larger ones are done, and if it ended before, this
    node and all smaller ones of today would be open, which is more than the budget. So with nothing to spare, the tokens are
    those of the queue, in a few rounds. The last few nodes take rounds of their own; to save these, `spare` of the budget
    is not used while more than the budget is open. With `relative`, the budget grows with what has been answered.
    """

    def __init__(
        self, engine: Engine, prompts: Sequence[tuple[int, ...]], table: Table, *, budget: float, relative: float,
        margin: float, max_nodes: int, max_depth: Sequence[int], temperature: float,
    ) -> None:
        """max_depth (prompts,): of each; all else as in `readout`."""
        self.engine, self.prompts, self.table, self.temperature = engine, prompts, table, temperature
        self.relative, self.margin, self.max_nodes, self.max_depth = relative, margin, max_nodes, np.array(max_depth)
        self.budget = np.full(len(prompts), float(budget))  # of each prompt
        self.spare = self.budget * margin
        self.expanded, self.leads = np.zeros((2, len(prompts)), np.int64)  # nodes computed, and those in START among them
        self.led = np.zeros(len(prompts))  # what was cut in START
        self.classes = np.zeros((len(prompts), len(table.automaton.task.options) + 1))
        self.unresolved = np.zeros(len(prompts))  # left for good, and by the state that it was left in
        self.left = np.zeros((len(prompts), 1))
        self.order = engine.there(padded(table.vocabulary.order))

    def run(self, states: np.ndarray) -> list[Readout]:
        """states (prompts,): where each answer stands."""
        tree = self.engine.tree(self.prompts, self.max_depth - 1)
        size, zero = len(self.prompts), np.zeros(len(self.prompts), np.int64)
        level = Nodes(np.arange(size), zero, zero, zero, states, np.ones(size))
        waiting, numbers, logits = level[:0], np.full(size, ROOT), iter([(slice(0, size), tree.roots)])
        while len(level):
            seen = [self._look(level[rows], numbers[rows], chunk) for rows, chunk in logits]
            found = joined([waiting, *self._expand(seen)])
            self._allow()
            level, waiting = self._choose(self._trimmed(found))
            level = self._led(level) if self.relative else level
            self.expanded += np.bincount(level.owner, minlength=size)
            numbers = tree.nodes + np.arange(len(level))
            logits = tree.grow(level.owner, level.parent, level.token)
        self._leave(waiting)
        reach = self._reach()
        return [self._result(i, reach[i]) for i in range(size)]

    def _look(self, nodes: Nodes, numbers: np.ndarray, logits: torch.Tensor) -> Seen:
        """Everything that is to be known of the next token of some nodes, still on the device and perhaps not yet computed."""
        states, which = np.unique(nodes.state, return_inverse=True)
        rows = [self.table.row(s) for s in states.tolist()]
        node, (low, high, code) = _per_node(rows, which, ("low", "high", "code"))
        alive, (rank, to) = _per_node(rows, which, ("live", "to"))
        values = masses(logits, self.order, self.temperature, Asked(node, low, high, alive, rank), self.engine.there)
        return Seen(nodes, numbers, values, node, code, alive, self.table.vocabulary.order[rank], to)

    def _expand(self, seen: Sequence[Seen]) -> list[Nodes]:
        """Add what the next token decides to `classes`; the children that stay open. Here the device is waited for, once."""
        values, children = torch.cat([s.values for s in seen]).cpu().numpy(), []
        width = self.classes.shape[1]
        for s, mine in zip(seen, np.split(values, np.cumsum([len(s.values) for s in seen])[:-1]), strict=True):
            total, decided, alive = s.shares(mine)
            if not np.isfinite(total).all():
                raise CrystalError("the logits are not numbers", where=self.engine.source, mend="make verify, or a wider --dtype")
            # code -1 (OFF) is column K, code -2 - k is column k
            column = np.where(s.code == -1, width - 1, -2 - s.code)
            self.classes += _binned(s.nodes.owner[s.node] * width + column, decided, self.classes.shape)
            above = s.nodes[s.alive]
            children.append(Nodes(above.owner, s.numbers[s.alive], above.depth + 1, s.token, s.to, alive))
        return children

    def _allow(self) -> None:
        """Let the budget of each prompt grow with what it has answered."""
        grown = np.maximum(self.relative * self.classes[:, :-1].sum(1), self.budget)
        self.spare += (grown - self.budget) * self.margin
        self.budget = grown

    def _led(self, nodes: Nodes) -> Nodes:
        """Less the smallest nodes in START, where these are more than LEADS and all others. They are left for good."""
        size, lead = len(self.prompts), np.flatnonzero(nodes.state == START)
        count = np.bincount(nodes.owner[lead], minlength=size)
        others = self.expanded - self.leads + np.bincount(nodes.owner, minlength=size) - count
        order = lead[np.lexsort((-nodes.mass[lead], nodes.owner[lead]))]  # a prompt's largest first
        owner = nodes.owner[order]
        place = np.arange(len(order)) - (np.cumsum(count) - count)[owner]
        cut = order[place >= (others + LEADS - self.leads)[owner]]
        self.led += np.bincount(nodes.owner[cut], nodes.mass[cut], size)
        self._leave(nodes[cut])
        kept = np.delete(np.arange(len(nodes)), cut)
        self.leads += count - np.bincount(nodes.owner[cut], minlength=size)
        return nodes[kept]

    def _trimmed(self, nodes: Nodes) -> Nodes:
        """Leave for good what is too deep, and what is so small that it needs no more than a hundredth of what is to spare."""
        deep, many = nodes.depth >= self.max_depth[nodes.owner], np.bincount(nodes.owner, minlength=len(self.prompts))
        small = ~deep & (nodes.mass * many[nodes.owner] <= self.spare[nodes.owner] / 100)
        self.spare -= np.bincount(nodes.owner[small], nodes.mass[small], len(self.prompts))
        self._leave(nodes[deep | small])
        return nodes[~(deep | small)]

    def _choose(self, nodes: Nodes) -> tuple[Nodes, Nodes]:
        """Those to be computed now, ordered by prompt, and those that wait. What is open below a prompt that is done is left."""
        size = len(self.prompts)
        # cut by depth: a budget that can no longer be kept must not drive the walk
        lost = self.unresolved - self.led
        lost = np.where(lost > self.budget, 0, lost)
        open_ = np.bincount(nodes.owner, nodes.mass, size)
        done = lost + open_ <= self.budget
        done |= self.expanded >= self.max_nodes
        self._leave(nodes[done[nodes.owner]])
        nodes = nodes[~done[nodes.owner]]
        order = np.lexsort((nodes.mass, nodes.owner))
        owner, mass = nodes.owner[order], nodes.mass[order]
        count = np.bincount(owner, minlength=size)
        end, upto = np.cumsum(count), np.concatenate([[0.0], np.cumsum(mass)])
        # what is open may yet be answered, and the budget grow: smaller nodes than that leaves wait for a later round
        hoped = np.minimum(self.relative * (self.classes[:, :-1].sum(1) + open_), open_ / 8)
        allowed = np.maximum(np.maximum(self.budget - self.spare - lost, 0), hoped)
        waits = upto[1:] - upto[end - count][owner] <= allowed[owner]
        from_top = end[owner] - np.arange(len(owner))  # 1 = the prompt's largest
        waits |= from_top > (self.max_nodes - self.expanded)[owner]
        return nodes[order[~waits]], nodes[order[waits]]

    def _leave(self, nodes: Nodes) -> None:
        # not the sum of `left`: how states are numbered, and with it the order of a sum, depends on what was read before
        self.unresolved += np.bincount(nodes.owner, nodes.mass, len(self.prompts))
        states = len(self.table.automaton.states)
        left = _binned(nodes.owner * states + nodes.state, nodes.mass, (len(self.prompts), states))
        left[:, : self.left.shape[1]] += self.left
        self.left = left

    def _reach(self) -> np.ndarray:
        """(prompts, K): how much of what was left could still become an option."""
        met = np.flatnonzero(self.left.any(0))
        if not len(met):
            return np.zeros_like(self.classes[:, 1:])
        return self.left[:, met] @ np.stack([self.table.automaton.reachable(state) for state in met.tolist()])

    def _result(self, i: int, reach: np.ndarray) -> Readout:
        total = self.classes[i].sum() + self.unresolved[i]
        if not abs(total - 1) <= 1e-6:
            raise CrystalError(f"the read-out sums to {total}, not 1: the logits are broken", where=self.engine.source,
                               mend="check the weights (make verify) and the dtype")
        return Readout(self.classes[i, :-1], float(self.classes[i, -1]), float(self.unresolved[i]), reach,
                       len(self.prompts[i]) + int(self.expanded[i]))


def _per_node(rows: list[Row], which: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Lay the states' rows out node by node: (m,) node of each entry, and the entries (m,) of each named column."""
    count = np.array([len(getattr(row, names[0])) for row in rows])
    entry = spans((np.cumsum(count) - count)[which], count[which])
    columns = [np.concatenate([getattr(row, name) for row in rows])[entry] for name in names]
    return np.repeat(np.arange(len(which)), count[which]), columns


def _binned(where: np.ndarray, mass: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.bincount(where, mass, shape[0] * shape[1]).astype(np.float64).reshape(shape)  # of nothing, numpy counts in integers


def joined(parts: list[Nodes]) -> Nodes:
    return Nodes(*(np.concatenate([getattr(p, name) for p in parts]) for name in Nodes.__dataclass_fields__))
