"""The read-out: the exact distribution of a checkpoint's answer to a closed task, without drawing a single sample.

The law is that of ancestral sampling at temperature 1 with nothing truncated, read by `crystal.tasks.read`, summed over
every tokenization. The tree of token prefixes whose answer is still open is walked level by level; what is too small to
matter is left `unresolved`, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .automaton import START, Row, Table, spans
from .engine import Engine
from .errors import CrystalError
from .memory import in_parts
from .tasks import Task


@dataclass(frozen=True)
class Readout:
    """Probabilities of one cell; options + off_support + unresolved = 1 within 1e-6, each counted on its own.

    An option's true probability lies in [options, options + reach], whatever the unresolved answers would become.
    """

    options: np.ndarray  # (K,) float64, in the task's order; not renormalised
    off_support: float  # decided, and no option
    unresolved: float  # not expanded; above the budget only where max_nodes, max_depth or the context said stop
    reach: np.ndarray  # (K,) how much of `unresolved` could still become the option
    tokens: int  # token positions this cell needs: its prompt and every node of its tree


@dataclass(frozen=True)
class Nodes:
    """Tokens of one level whose answer is open, ordered by prompt; all arrays (n,)."""

    owner: np.ndarray  # the prompt
    parent: np.ndarray  # index in the level above
    token: np.ndarray
    state: np.ndarray
    mass: np.ndarray  # probability of the whole path

    def __getitem__(self, which: np.ndarray) -> Nodes:
        return Nodes(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.owner)


def readout(
    engine: Engine, prompts: Sequence[tuple[int, ...]], task: Task, *,
    budget: float = 1e-4, max_nodes: int = 20_000, max_depth: int = 12, batch: int | None = None, temperature: float = 1.0,
    begun: Sequence[int] | None = None,
) -> list[Readout]:
    """Read the answers to `prompts` (token ids, see `Engine.encode`), `batch` prompts to a tree (None: the engine's), fewer
    where the memory is too small for so many.

    budget: how much probability per prompt may stay unresolved. max_nodes, max_depth: per prompt, tokens expanded below it
    and tokens an answer may take before it is given up; a flat model would otherwise never end. temperature: divides the
    logits of every token; 1 is the model's own law. begun: how many tokens at each prompt's end the answer holds already;
    the law is then of how it goes on.
    Raises: CrystalError for an open task, a prompt longer than the context, an answer that is begun and over, or logits that
    are no numbers.
    """
    if not 0 <= budget <= 1:
        raise CrystalError(f"budget is a probability, not {budget}", mend="--budget 1e-4")
    if not 0 < temperature < np.inf:
        raise CrystalError(f"a temperature is a positive number, not {temperature}", mend="1 is the model's own law")
    table = engine.table(task)
    for ids in prompts:
        max_depth = min(max_depth, engine.room(ids))
    states = [_state(engine, table, ids[len(ids) - n :]) for ids, n in zip(prompts, begun or [0] * len(prompts))]

    def walk(part: Sequence[tuple[tuple[int, ...], int]]) -> list[Readout]:
        ids, begin = zip(*part)
        return _Walk(engine, ids, table, budget, max_nodes, temperature).run(max_depth, np.array(begin, int))

    return in_parts(engine, list(zip(prompts, states)), walk, batch)


def _state(engine: Engine, table: Table, tokens: Sequence[int]) -> int:
    """Where an answer stands after its first tokens."""
    state = START
    for token in tokens:
        state = int(table.follow(np.array([state]), engine.vocabulary.rank[[token]])[0])
        if state < 0:
            raise CrystalError(f"the answer is over after {engine.tokenizer.decode(list(tokens))!r}", mend="begin it with less")
    return state


class _Walk:
    """The walk of one batch of prompts. `classes` (prompts, K + 1): mass decided so far, the last column is OFF."""

    def __init__(
        self, engine: Engine, prompts: Sequence[tuple[int, ...]], table: Table, budget: float, max_nodes: int, temperature: float,
    ) -> None:
        self.engine, self.prompts, self.table, self.max_nodes = engine, prompts, table, max_nodes
        self.temperature = temperature
        self.left = np.full(len(prompts), budget)
        self.expanded = np.zeros(len(prompts), np.int64)
        self.classes = np.zeros((len(prompts), len(table.automaton.task.options) + 1))
        self.unresolved = np.zeros(len(prompts))
        self.reach = np.zeros_like(self.classes[:, 1:])
        self.order = torch.from_numpy(table.vocabulary.order).to(engine.device)

    def run(self, max_depth: int, states: np.ndarray) -> list[Readout]:
        """states (prompts,): where each answer stands."""
        tree = self.engine.tree(self.prompts, max_depth - 1)
        one = np.ones(len(self.prompts))
        level = Nodes(np.arange(len(one)), np.zeros(len(one), np.int64), np.zeros(len(one), np.int64), states, one)
        logits: Iterator = iter([(slice(0, len(level)), tree.roots)])
        for depth in range(1, max_depth + 1):
            children = _joined([self._expand(level, rows, chunk) for rows, chunk in logits])
            level = self._prune(children, final=depth == max_depth)
            if not len(level):
                break
            self.expanded += np.bincount(level.owner, minlength=len(self.prompts))
            logits = tree.grow(level.owner, level.parent, level.token)
        return [self._result(i) for i in range(len(self.prompts))]

    def _expand(self, level: Nodes, rows: slice, logits: torch.Tensor) -> Nodes:
        """Add what the next token decides to `classes`; return the children that stay open."""
        part, table = level[rows], self.table
        p = torch.softmax(logits[:, self.order].double() / self.temperature, -1)
        upto = p.new_zeros(len(p), p.shape[1] + 1)
        torch.cumsum(p, -1, out=upto[:, 1:])
        if torch.isnan(upto[:, -1]).any():
            raise CrystalError("the logits are not numbers", where=self.engine.source, mend="make verify, or a wider --dtype")
        states, which = np.unique(part.state, return_inverse=True)
        found = [table.row(s) for s in states.tolist()]
        node, (low, high, code) = _per_node(found, which, ("low", "high", "code"))
        at = torch.from_numpy(node).to(logits.device)
        decided = (upto[at, torch.from_numpy(high)] - upto[at, torch.from_numpy(low)]).cpu().numpy() * part.mass[node]
        # code -1 (OFF) is column K, code -2 - k is column k
        column = np.where(code == -1, self.classes.shape[1] - 1, -2 - code)
        self.classes += _binned(part.owner[node] * self.classes.shape[1] + column, decided, self.classes.shape)
        node, (rank, to) = _per_node(found, which, ("live", "to"))
        alive = p[torch.from_numpy(node).to(logits.device), torch.from_numpy(rank)].cpu().numpy() * part.mass[node]
        return Nodes(part.owner[node], node + rows.start, table.vocabulary.order[rank], to, alive)

    def _prune(self, children: Nodes, final: bool) -> Nodes:
        """Give up, per prompt, the smallest children: half of what is left of the budget, or all if that is enough.

        Half now, half of the rest on the next level: measured within 11 % of any other schedule tried.
        """
        size, total = len(self.prompts), np.bincount(children.owner, children.mass, len(self.prompts))
        allowed = np.where(total <= self.left, np.inf, self.left / 2)
        order = np.lexsort((children.mass, children.owner))
        owner, mass = children.owner[order], children.mass[order]
        count = np.bincount(owner, minlength=size)
        before = np.concatenate([[0.0], np.cumsum(mass)])[np.cumsum(count) - count]
        dropped = np.cumsum(mass) - before[owner] <= allowed[owner]
        from_top = np.cumsum(count)[owner] - np.arange(len(owner))  # 1 = the prompt's largest child
        dropped |= (from_top > (self.max_nodes - self.expanded)[owner]) | final
        self._leave(children[order[dropped]])
        return children[np.sort(order[~dropped])]

    def _leave(self, dropped: Nodes) -> None:
        lost = np.bincount(dropped.owner, dropped.mass, len(self.prompts))
        self.unresolved, self.left = self.unresolved + lost, np.maximum(self.left - lost, 0)
        states, which = np.unique(dropped.state, return_inverse=True)
        if len(states):
            per_state = _binned(dropped.owner * len(states) + which, dropped.mass, (len(self.prompts), len(states)))
            self.reach += per_state @ np.stack([self.table.automaton.reachable(state) for state in states.tolist()])

    def _result(self, i: int) -> Readout:
        total = self.classes[i].sum() + self.unresolved[i]
        if not abs(total - 1) <= 1e-6:
            raise CrystalError(f"the read-out sums to {total}, not 1: the logits are broken", where=self.engine.source,
                               mend="check the weights (make verify) and the dtype")
        return Readout(self.classes[i, :-1], float(self.classes[i, -1]), float(self.unresolved[i]), self.reach[i],
                       len(self.prompts[i]) + int(self.expanded[i]))


def _per_node(rows: list[Row], which: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Lay the states' rows out node by node: (m,) node of each entry, and the entries (m,) of each named column."""
    count = np.array([len(getattr(row, names[0])) for row in rows])
    entry = spans((np.cumsum(count) - count)[which], count[which])
    columns = [np.concatenate([getattr(row, name) for row in rows])[entry] for name in names]
    return np.repeat(np.arange(len(which)), count[which]), columns


def _binned(where: np.ndarray, mass: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.bincount(where, mass, shape[0] * shape[1]).reshape(shape)


def _joined(parts: list[Nodes]) -> Nodes:
    return Nodes(*(np.concatenate([getattr(p, name) for p in parts]) for name in Nodes.__dataclass_fields__))
