"""Which batches of a plan wait, which are done, which are given up: what a worker is to do next, and whose turn it is to be kept.

Bookkeeping alone: knows neither Ray nor models.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .batches import Batch, Plan, Read

DEATHS = 3  # of workers, at the same work, before it is given up
WORTH = 8  # batches that must wait for each worker of a rung before one more loads it


@dataclass
class Board:
    """waiting: in the plan's order, by rung. order: what is still to come out. done: what is read and waits for its turn."""

    plan: Plan
    waiting: dict[str, list[Batch]]
    order: collections.deque[Batch]
    done: dict[Batch, Read] = field(default_factory=dict)
    dropped: dict[Batch, None] = field(default_factory=dict)  # a set with an order
    deaths: collections.Counter[Batch | str] = field(default_factory=collections.Counter)

    @classmethod
    def of(cls, plan: Plan) -> Board:
        waiting = {rung.name: plan.batches(rung.name) for rung in plan.rungs}
        return cls(plan, waiting, collections.deque(batch for batches in waiting.values() for batch in batches))

    def next_for(self, loaded: str | None, crews: Mapping[str | None, int]) -> Batch | str | None:
        """What a worker with that rung loaded does next: a batch of it, or, for want of any, another rung to load.

        crews: how many workers have each rung loaded. The first rungs first, since all that is read must wait for them.
        """
        if loaded and self.waiting[loaded]:
            return self.waiting[loaded].pop(0)
        worth = (rung for rung, batches in self.waiting.items() if len(batches) > WORTH * crews.get(rung, 0))
        return next(worth, None)

    def died(self, work: Batch | str) -> bool:
        """A worker died of that: a batch it read, or a rung it loaded. Returns: whether that is now given up."""
        self.deaths[work] += 1
        given_up = self.deaths[work] >= DEATHS
        if isinstance(work, Batch):
            if given_up:
                self.dropped[work] = None
            else:
                self.waiting[work.rung].insert(0, work)
        elif given_up and work in self.waiting:
            self.dropped |= dict.fromkeys(self.waiting[work])
            self.waiting[work].clear()
        return given_up

    def in_turn(self) -> Iterator[Read]:
        """What is done and next in the plan's order."""
        while self.order and (self.order[0] in self.done or self.order[0] in self.dropped):
            batch = self.order.popleft()
            if batch in self.done:
                yield self.done.pop(batch)

    def finished(self) -> Iterator[Read]:
        """All that is done, in the plan's order, though what comes before it may be missing."""
        for batch in self.order:
            if batch in self.done:
                yield self.done.pop(batch)

    def left_out(self) -> str:
        """Names what was given up."""
        cells = sum(map(self.plan.size, self.dropped))
        rungs = [rung for rung in self.waiting if self.deaths[rung] >= DEATHS]
        named = [f"rung {rung}, which cannot be loaded" for rung in rungs]
        named += [self.plan.name_of(batch) for batch in self.dropped if batch.rung not in rungs]
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        return f"{cells} cells are left out, their workers died {DEATHS} times: {'; '.join(named[:5])}{more}"
