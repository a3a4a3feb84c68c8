"""One context for all tasks: does SFT move every task towards what ONE context of the base says?

m_t is the move of task t's mean distribution from base to SFT, and u_ti the direction of context i:
its distribution in the base less the base's mean.

    statistic   the largest over contexts of the mean over tasks of cos(m_t, u_ti)
    null        the contexts' labels dealt anew within each kind of task
    progress    sum_t <m_t, u_ti> / s_t over sum_t <u_ti, u_ti> / s_t, where s_t is the mean of
                <u_tj, u_tj> over contexts and i is chosen on tasks of other kinds; 0: no move that
                way, 1: SFT's mean is as far from the base's mean as that context is
    share       of the largest of the non-negative weights by which groups of contexts explain the
                moves; says nothing where contexts form no groups

Tasks of one kind share options and are one piece of evidence: every kind weighs the same, and
intervals leave out a kind at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from . import inference as inf
from .evidence import Evidence
from .inference import Estimate, Null
from .quantities import Array, ratio

APART = 0.25  # mean silhouette up to which there are no groups (Kaufman and Rousseeuw 1990)
FEWEST_KINDS, FEWEST_CONTEXTS = 3, 3  # leave one kind out, and two are left to choose by
MOST_GROUPS, MOST_CONTEXTS = 8, 2000


@dataclass(frozen=True, eq=False)
class Moves:
    """The moves of one ladder; nan for a context that a task lacks."""

    tasks: tuple[str, ...]
    contexts: tuple[str, ...]
    move: tuple[Array, ...]  # by task (options,), m_t
    toward: tuple[Array, ...]  # by task (contexts, options), u_ti
    inner: Array  # (tasks, contexts), <m_t, u_ti> less what sampling adds
    square: Array  # and <u_ti, u_ti>
    kinds: Array  # (tasks,) numbers

    @cached_property
    def weight(self) -> Array:
        """(tasks,) one over the number of tasks of the kind."""
        return 1.0 / np.bincount(self.kinds)[self.kinds]

    @cached_property
    def scale(self) -> Array:
        """(tasks,) s_t."""
        return np.nanmean(self.square, axis=1)

    @cached_property
    def cosine(self) -> Array:
        """(tasks, contexts); 0 where a context is the base's mean."""
        raw = np.stack([u @ m for u, m in zip(self.toward, self.move)])
        size = np.array([np.linalg.norm(m) for m in self.move])[:, None]
        length = size * np.stack([np.linalg.norm(u, axis=1) for u in self.toward])
        whole = np.where(np.isnan(self.inner), np.nan, 0.0)
        return np.divide(raw, length, out=whole, where=length > 1e-12)

    @cached_property
    def seeds(self) -> list[int]:
        """Of each task the context that tasks of other kinds name."""
        return [_named(self, self.kinds != kind, t) for t, kind in enumerate(self.kinds)]

    @cached_property
    def grouped(self) -> tuple[Array, float]:
        """(contexts,) groups of those that say alike in all tasks together, and how well they are
        apart, the mean silhouette.

        Average linkage of directions, in units of each task's scatter; of 2 to MOST_GROUPS groups
        the number with the largest silhouette. Above MOST_CONTEXTS all are one group.
        """
        if len(self.contexts) > MOST_CONTEXTS:
            return np.zeros(len(self.contexts), int), 0.0
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import pdist, squareform

        every = zip(self.toward, self.weight, self.scale)
        points = [np.nan_to_num(u) * np.sqrt(w) / np.sqrt(s) for u, w, s in every]
        points = np.concatenate(points, axis=1)
        tree, far = linkage(points, "average"), squareform(pdist(points))
        most = min(MOST_GROUPS, len(points) - 1)
        cuts = [fcluster(tree, count, "maxclust") for count in range(2, most + 1)]
        widths = [_silhouette(far, cut) for cut in cuts]
        best = int(np.argmax(widths))
        return cuts[best] - 1, widths[best]


def kinds(options: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Task -> its kind, the first of the tasks that share half of the options of the one that has
    fewer, directly or through others.
    """
    kind: dict[str, str] = {}
    every = {task: {*names} for task, names in options.items()}
    for task, mine in every.items():
        shared = {other: 2 * len(mine & every[other]) for other in kind}
        alike = {kind[o] for o, n in shared.items() if n >= min(len(mine), len(every[o]))}
        first = next((other for other in kind if other in alike), task)
        kind = {other: first if one in alike else one for other, one in kind.items()}
        kind[task] = first
    return kind


def _directions(base: Evidence) -> tuple[list[str], Array, Array]:
    """The base's contexts, the context of each prompt, and u_ti, (contexts, options)."""
    names, member = np.unique(base.clusters.astype(str), return_inverse=True)
    sums = np.stack([np.bincount(member, column) for column in base.distribution.T], 1)
    own = sums / np.bincount(member)[:, None]
    return names.tolist(), member, own - base.distribution.mean(0)


def _task(base: Evidence, sft: Evidence, often: Sequence[str]) -> tuple[Array, ...] | None:
    """m_t, u_ti, <m_t, u_ti> and <u_ti, u_ti> on the contexts `often`, nan for those it lacks."""
    names, member, away = _directions(base)
    if len({*names} & {*often}) < 2:
        return None
    sizes, options = np.bincount(member), base.distribution.shape[1]
    noise = np.bincount(member, base.noise) / sizes**2 * options  # squared error of a context's
    weight = sizes / sizes.sum()
    cross, average = weight * noise, float(weight**2 @ noise)  # the base's mean is in both
    index = {name: i for i, name in enumerate(names)}
    place = np.array([index.get(name, -1) for name in often])
    there = place >= 0
    move = sft.distribution.mean(0) - base.distribution.mean(0)
    u = np.where(there[:, None], away[place], np.nan)
    inner = u @ move - np.where(there, average - cross[place], np.nan)
    square = (u**2).sum(-1) - np.where(there, noise[place], 0)
    return move, u, inner, square + 2 * np.where(there, cross[place], 0) - average


def moves(
    pairs: Mapping[str, tuple[Evidence, Evidence]], kind: Mapping[str, str] | None = None
) -> Moves | None:
    """pairs: task -> base and SFT on the same prompts; a context is a cluster. kind: of `kinds`, or
    every task its own. Contexts count if half of the tasks asked them; tasks whose base gives every
    context the same answer are left out. None if fewer than FEWEST_KINDS or FEWEST_CONTEXTS are
    left.
    """
    asked = {}
    for task, (base, _) in pairs.items():
        names, _, away = _directions(base)
        if (away**2).sum(-1).max() > 1e-12:
            asked[task] = {*names}
    every = sorted(set().union(*asked.values()))
    often = [c for c in every if 2 * sum(c in mine for mine in asked.values()) >= len(asked)]
    if len(often) < FEWEST_CONTEXTS:
        return None
    found = {task: one for task in asked if (one := _task(*pairs[task], often))}
    there = {task: ~np.isnan(inner) for task, (_, _, inner, _) in found.items()}
    of = {task: (kind or {}).get(task, task) for task in found}

    def tested(task: str) -> bool:
        """Whether its contexts differ beyond what draws add, and other kinds can name one."""
        other = np.any([there[o] for o in found if of[o] != of[task]] or [False], axis=0)
        return np.nanmean(found[task][-1]) > 1e-12 and (there[task] & other).any()

    tasks = tuple(filter(tested, found))
    numbers = {name: n for n, name in enumerate(dict.fromkeys(of[task] for task in tasks))}
    if len(numbers) < FEWEST_KINDS:
        return None
    number = np.array([numbers[of[task]] for task in tasks])
    asks = np.array([there[task] for task in tasks]) / np.bincount(number)[number][:, None]
    if not (2 * asks.sum(0) >= len(numbers) - 1e-9).any():
        return None  # no context that half of the kinds ask could explain them
    move, toward, inner, square = zip(*(found[task] for task in tasks))
    return Moves(tasks, tuple(often), move, toward, np.array(inner), np.array(square), number)


def fit(cosine: Array, weight: Array, least: float = 0.5) -> Array:
    """(..., contexts) mean over tasks of (..., tasks, contexts) by weight; nan where tasks of less
    than the `least` share of it ask, or none.
    """
    there, weight = ~np.isnan(cosine), weight[:, None]
    count = (there * weight).sum(-2)
    mean = (np.where(there, cosine, 0) * weight).sum(-2) / np.maximum(count, 1e-12)
    enough = (count > 0) & (count >= least * weight.sum() - 1e-9)
    return np.where(enough, mean, np.nan)


def joint_null(found: Moves, *, permutations: int = 999, seed: int = 0) -> Null:
    """The largest mean cosine, against contexts whose labels are dealt anew within each kind."""
    cosine, rng = found.cosine, inf.generator(seed, "contexts")
    draws = []
    for part in inf.parts(permutations, cosine.size):
        dealt = np.repeat(cosine[:, None], part, axis=1)  # (tasks, draws, contexts)
        for mine in (np.flatnonzero(found.kinds == kind) for kind in np.unique(found.kinds)):
            there = np.flatnonzero(~np.isnan(cosine[mine]).any(0))  # the others stay in their place
            order = inf.shuffled(there, part, rng)
            for task in mine:
                dealt[task][:, there] = cosine[task][order]
        draws.append(np.nanmax(fit(dealt.swapaxes(0, 1), found.weight), axis=-1))
    observed = float(np.nanmax(fit(cosine, found.weight)))
    return inf.against("contexts dealt anew within each kind", observed, np.concatenate(draws))


def _named(found: Moves, among: Array, asked: int) -> int:
    """The context that the tasks `among` (a mask) name, of those that task `asked` asks."""
    for least in (0.5, 0.0):  # contexts that half of them ask, if there are any
        score = fit(found.cosine[among], found.weight[among], least)
        score = np.where(np.isnan(found.inner[asked]), np.nan, score)
        if not np.isnan(score).all():
            break
    return int(np.nanargmax(score))


@dataclass(frozen=True)
class Account:
    """What the joint test rests on, in plain numbers."""

    tasks: list[str]
    contexts: list[str]
    cosine: list[list[float | None]]  # (tasks, contexts); None where a task lacks a context
    seeds: dict[str, str]  # task -> the context that tasks of other kinds name
    progress: dict[str, float]  # how far it went there
    group: dict[str, int]  # context -> number


def account(found: Moves) -> Account:
    """See `Account`."""
    every, (member, _) = range(len(found.tasks)), found.grouped
    part = ratio(found.inner[every, found.seeds], found.square[every, found.seeds])
    return Account(
        list(found.tasks),
        list(found.contexts),
        [[None if np.isnan(x) else float(x) for x in row] for row in found.cosine],
        {task: found.contexts[i] for task, i in zip(found.tasks, found.seeds)},
        dict(zip(found.tasks, part.tolist())),
        dict(zip(found.contexts, member.tolist())),
    )


def progress(found: Moves) -> Estimate:
    """How far SFT went towards the context that tasks of other kinds name; jackknife over kinds."""
    every = range(len(found.tasks))
    above, below = (
        np.bincount(found.kinds, found.weight * part[every, found.seeds] / found.scale)
        for part in (found.inner, found.square)
    )
    apart = inf.leave_one_out(np.arange(len(above)))
    return inf.estimate(lambda w: ratio(w @ above, w @ below), apart)


def _silhouette(far: Array, cut: Array) -> float:
    """Mean silhouette (Rousseeuw 1987); 0 for a context that is a group by itself."""
    member = cut == np.unique(cut)[:, None]
    sums, sizes = far @ member.T, member.sum(1)
    own = member.argmax(0)
    inside = sums[np.arange(len(cut)), own] / np.maximum(sizes[own] - 1, 1)
    nearest = np.where(member.T, np.inf, sums / sizes).min(1)
    width = (nearest - inside) / np.maximum(np.maximum(inside, nearest), 1e-12)
    return float(np.where(sizes[own] > 1, width, 0.0).mean())


def largest_share(found: Moves) -> Estimate:
    """Share of the largest of the non-negative least-squares weights by which groups of contexts
    explain the moves; jackknife over kinds.

    The groups' directions, weighted by size, sum to nothing, so weights are known up to a multiple
    of the sizes: what counts is a weight's excess over the group's share of the contexts.
    """
    from scipy.optimize import nnls

    member, _ = found.grouped
    by_kind, sizes = _parts(found, member), np.bincount(member)

    def largest(kinds: list) -> float:
        columns, target = (np.concatenate(part) for part in zip(*sum(kinds, [])))
        weights, _ = nnls(columns, target)
        excess = np.maximum(0, weights - weights.sum() * sizes / sizes.sum())
        return float(excess.max() / excess.sum()) if excess.sum() > 0 else 0.0

    n, whole = len(by_kind), largest(by_kind)
    without = np.array([largest(by_kind[:out] + by_kind[out + 1 :]) for out in range(n)])
    return replace(inf.student(n * whole - (n - 1) * without, low=0, high=1), here=whole)


def _parts(found: Moves, member: Array) -> list[list[tuple[Array, Array]]]:
    """By kind and task, in units of its scatter, weighted: directions of groups (options, groups),
    and the move.
    """
    by_kind: list[list[tuple[Array, Array]]] = [[] for _ in np.unique(found.kinds)]
    for t, kind in enumerate(found.kinds):
        weight = np.sqrt(found.weight[t]) / np.sqrt(found.scale[t])
        there = ~np.isnan(found.inner[t])  # a group that a task did not ask explains nothing there
        inside = (member == np.unique(member)[:, None]) & there
        sums = inside @ np.where(there[:, None], found.toward[t], 0)
        means = (sums / np.maximum(inside.sum(1), 1)[:, None]).T
        by_kind[kind].append((weight * means, weight * found.move[t]))
    return by_kind
