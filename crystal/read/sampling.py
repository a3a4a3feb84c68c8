"""The tree sampler: n independent answers for the price of the distinct ones.

At every node the number of draws that reached it is split over the next token by one multinomial
draw. The distribution is exactly that of n independent ancestral samples at temperature 1, nothing
truncated; only the order of the samples is lost.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..ask.tasks import Task
from ..errors import CrystalError
from .automaton import START
from .engine import Engine
from .tree import ROOT, Prompts
from .vocabulary import END, VOID

UNREADABLE = "\ufffd"  # the text of an answer that ran into an id which stands for no text
BLOCK = 256  # nodes whose float64 probabilities are held at once
MANY, OFTEN = 256, 4  # draws of a node, and of an outcome, above which a binomial is faster
Draws = dict[str, int]  # text -> how often
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Level:
    """Draws that share a beginning, one node a beginning, ordered by prompt: arrays (n,), lists."""

    owner: np.ndarray  # the prompt
    count: np.ndarray
    state: np.ndarray  # of the task's automaton
    key: list[bytes]  # digest of seed, prompt and path: where the node's own random numbers start
    text: list[bytes]


def draw(engine: Engine, prompt_ids: tuple[int, ...], n: int, **how) -> Draws:
    return draw_many(engine, [prompt_ids], n, **how)[0]


def draw_many(
    engine: Engine,
    prompts: Prompts,
    n: int,
    *,
    seed: int,
    max_tokens: int,
    task: Task | None = None,
) -> list[Draws]:
    """Draw `n` answers to each prompt, many in one tree: text -> how often, most frequent first.

    task: stop an answer once `read` is decided (its text ends with the token that decided); None:
    whole answers, until an end token. At most max_tokens tokens. Bytes are decoded with "replace".
    A node's generator is keyed by (seed, prompt, path): draws depend neither on the order of work
    nor on what shares a forward, but for rounding.
    Raises: CrystalError for n < 1, max_tokens < 1, an open task as `task`, a prompt too long.
    """
    for name, value in (("n", n), ("max_tokens", max_tokens)):
        if value < 1:
            raise CrystalError(f"{name} must be 1 or more, not {value}")
    work = functools.partial(_draw, engine, n, seed, _rule(engine, task))
    return engine.in_parts(prompts, max_tokens, work)


def _draw(
    engine: Engine, n: int, seed: int, follow: Rule, prompts: Prompts, most: np.ndarray
) -> list[Draws]:
    """The draws of one tree's prompts; most (prompts,): tokens that an answer to each may take."""
    size, each = len(prompts), np.arange(len(prompts))
    tree = engine.tree(prompts, most - 1)
    roots = [_digest(repr((int(seed), tuple(ids))).encode()) for ids in prompts]
    level = _Level(each, np.full(size, n), np.full(size, START), roots, [b""] * size)
    texts: list[Draws] = [{} for _ in prompts]
    first, logits = 0, iter([(slice(0, size), tree.roots)])  # first: number of the first node
    for step in range(1, most.max() + 1):
        parts = zip(*_split(level, logits), strict=True)
        parent, token, count = map(np.concatenate, parts)
        owner, state = level.owner[parent], follow(level.state[parent], token)
        text = _longer(level.text, engine.pieces, parent, token)
        done = (state < 0) | (step == most[owner])
        ended, on = np.flatnonzero(done), np.flatnonzero(~done)
        _tally(texts, owner[ended], [text[i] for i in ended], count[ended])
        if not len(on):
            break
        above = first + parent[on] if step > 1 else np.full(len(on), ROOT)
        path = zip(parent[on].tolist(), token[on].tolist(), strict=True)
        keys = [_digest(level.key[node] + t.to_bytes(4, "little")) for node, t in path]
        level = _Level(owner[on], count[on], state[on], keys, [text[i] for i in on])
        first, logits = tree.nodes, tree.grow(level.owner, above, token[on])
    return [dict(Counter(found).most_common()) for found in texts]


def _digest(of: bytes) -> bytes:
    return hashlib.blake2b(of, digest_size=16).digest()


def _rule(engine: Engine, task: Task | None) -> Rule:
    """(states (m,), tokens (m,)) -> states one token later (m,), negative where it is finished."""
    vocabulary = engine.vocabulary
    if task is None:
        return lambda _, token: np.where(vocabulary.rank[token] < vocabulary.texts, START, -1)
    table = engine.table(task)
    return lambda state, token: table.follow(state, vocabulary.rank[token])


def _split(
    level: _Level, logits: Iterator[tuple[slice, torch.Tensor]]
) -> Iterator[tuple[np.ndarray, ...]]:
    """One token later: node, token and count of every distinct outcome (m,), ascending."""
    for rows, chunk in logits:
        for low, block in zip(range(rows.start, rows.stop, BLOCK), chunk.split(BLOCK)):
            some = slice(low, low + len(block))
            chance = torch.softmax(block.double(), -1).cpu().numpy()
            found, count = _multinomials(level.key[some], level.count[some], chance)
            node, token = np.divmod(found, block.shape[-1])
            yield node + low, token, count


def _multinomials(
    keys: list[bytes], counts: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct outcomes of counts[i] draws from p[i] (n, V), as places in p.ravel(); their counts.

    One binomial for an outcome that is expected OFTEN, whatever n is; all other draws by inversion
    of the cumulative sum of what is left. `p` is used up. Each row has a generator of its own key.
    """
    width = p.shape[1]
    often, chance = _set_apart(p, counts)
    upto = torch.from_numpy(p).cumsum(-1).numpy()
    upto /= np.maximum(upto[:, -1:], np.finfo(float).tiny)
    begin = np.searchsorted(often, np.arange(len(p) + 1) * width).tolist()
    hits, rest, found = np.zeros(len(often), np.int64), counts.tolist(), []
    for i, key in enumerate(keys):
        philox, a, b = np.random.Philox(key=int.from_bytes(key, "little")), begin[i], begin[i + 1]
        generator = np.random.Generator(philox)
        if a < b:  # numpy gives the last outcome what the others leave, whatever its probability
            *hits[a:b], rest[i] = generator.multinomial(rest[i], chance[a : b + 1]).tolist()
        found.append(upto[i].searchsorted(generator.random(rest[i]), "right"))
    seldom = np.repeat(np.arange(len(p)) * width, rest)
    seldom += np.minimum(np.concatenate(found), width - 1)
    places, times = np.unique(seldom, return_counts=True)
    places = np.concatenate([places, often[hits > 0]])
    times = np.concatenate([times, hits[hits > 0]])
    order = np.argsort(places)
    return places[order], times[order]


def _set_apart(p: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (m,) of outcomes expected OFTEN, and their probabilities (m + 1,), which `p` loses."""
    often, many = np.zeros(p.shape, bool), counts > MANY
    often[many] = p[many] * counts[many, None] >= OFTEN
    places = np.flatnonzero(often)
    chance = np.append(p.ravel()[places], 0)
    p.ravel()[places] = 0
    return places, chance


def _longer(
    texts: list[bytes], pieces: Sequence[object], parent: np.ndarray, token: np.ndarray
) -> list[bytes]:
    """Texts one token later, (m,); whatever runs into VOID is UNREADABLE."""
    longer = []
    for node, t in zip(parent.tolist(), token.tolist(), strict=True):
        piece = b"" if pieces[t] is END else pieces[t]
        longer.append(UNREADABLE.encode() if piece is VOID else texts[node] + piece)
    return longer


def _tally(found: list[Draws], owner: np.ndarray, texts: list[bytes], count: np.ndarray) -> None:
    """Add finished answers to each prompt's; several paths may spell one text."""
    for i, spelled, n in zip(owner.tolist(), texts, count.tolist(), strict=True):
        text = spelled.decode("utf-8", "replace")
        found[i][text] = found[i].get(text, 0) + n
