"""The tree sampler: n independent answers for the price of the distinct ones.

At every node the number of draws that reached it is split over the next token by one multinomial draw. The law is exactly
that of n i.i.d. ancestral samples at temperature 1, nothing truncated; only the order of the samples is lost.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch

from ..ask.tasks import Task
from ..errors import CrystalError
from .automaton import START
from .engine import Engine
from .memory import in_parts
from .tree import ROOT
from .vocabulary import END, VOID

UNREADABLE = "\ufffd"  # the text of an answer that ran into an id which stands for no text
BLOCK = 256  # nodes whose float64 probabilities are held at once: whole chunks leave the cache, and the heap is trimmed
MANY, OFTEN = 256, 4  # draws of a node, and of an outcome, above which a binomial beats single draws; both are flat optima
_WORDS = struct.Struct("<QQ")
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Level:
    """Draws that share a beginning, one node a beginning, ordered by prompt: arrays (n,) and lists of n."""

    owner: np.ndarray  # the prompt
    count: np.ndarray
    state: np.ndarray  # of the task's automaton
    key: list[bytes]  # digest of seed, prompt and path: where the node's own random numbers start
    text: list[bytes]


def draw(
    engine: Engine, prompt_ids: tuple[int, ...], n: int, *, seed: int, max_tokens: int, task: Task | None = None,
) -> dict[str, int]:
    """`draw_many` of one prompt."""
    return draw_many(engine, [prompt_ids], n, seed=seed, max_tokens=max_tokens, task=task)[0]


def draw_many(
    engine: Engine, prompts: Sequence[tuple[int, ...]], n: int, *, seed: int, max_tokens: int, task: Task | None = None,
) -> list[dict[str, int]]:
    """Draw `n` answers to each prompt, many in one tree: for every prompt, text -> how often, most frequent first.

    task: stop an answer as soon as `read` is decided (its text then ends with the token that decided); None: whole
    answers, until an end token. Either way at most max_tokens tokens. Bytes are decoded with errors="replace".
    The generator of a node is keyed by (seed, prompt, path), so draws depend neither on n's order of work nor on how many
    nodes or prompts share a forward, as long as the probabilities agree: in float32 these move by 1e-7 with the machine
    and the batch's shape, and about that share of draws may move with them.
    Raises: CrystalError for n < 1, max_tokens < 1, an open task given as `task`, a prompt longer than the context.
    """
    for name, value in (("n", n), ("max_tokens", max_tokens)):
        if value < 1:
            raise CrystalError(f"{name} must be 1 or more, not {value}")
    most, follow = [min(max_tokens, engine.room(ids)) for ids in prompts], _rule(engine, task)
    return in_parts(engine, list(zip(prompts, most, strict=True)), lambda part: _draw(engine, *zip(*part), n, seed, follow))


def _draw(
    engine: Engine, prompts: Sequence[tuple[int, ...]], most: Sequence[int], n: int, seed: int, follow: Rule,
) -> list[dict[str, int]]:
    """The draws of the prompts of one tree; most (prompts,): tokens that an answer to each may take."""
    size, most = len(prompts), np.array(most)
    tree = engine.tree(prompts, most - 1)
    level = _Level(np.arange(size), np.full(size, n), np.full(size, START), [_root_key(seed, p) for p in prompts], [b""] * size)
    texts: list[dict[str, int]] = [{} for _ in prompts]
    first = 0  # number of the level's first node
    logits = iter([(slice(0, size), tree.roots)])
    for step in range(1, most.max() + 1):
        parts = [_split(level, rows, block) for rows, block in _blocks(logits)]
        parent, token, count = map(np.concatenate, zip(*parts, strict=True))
        state = follow(level.state[parent], token)
        done = (state < 0) | (step == most[level.owner[parent]])
        _tally(texts, level, engine.pieces, parent[done], token[done], count[done])
        if done.all():
            break
        parent, token, count, state = (x[~done] for x in (parent, token, count, state))
        above = first + parent if step > 1 else np.full(len(parent), ROOT)
        level, first = _below(level, engine.pieces, parent, token, count, state), tree.nodes
        logits = tree.grow(level.owner, above, token)
    return [dict(sorted(found.items(), key=itemgetter(1), reverse=True)) for found in texts]


def _root_key(seed: int, prompt_ids: tuple[int, ...]) -> bytes:
    return hashlib.blake2b(repr((int(seed), tuple(prompt_ids))).encode(), digest_size=16).digest()


def _rule(engine: Engine, task: Task | None) -> Rule:
    """(states (m,), tokens (m,)) -> states one token later (m,), negative where the answer is finished."""
    vocabulary = engine.vocabulary
    if task is None:
        return lambda _, token: np.where(vocabulary.rank[token] < vocabulary.texts, START, -1)
    table = engine.table(task)
    return lambda state, token: table.follow(state, vocabulary.rank[token])


def _blocks(logits: Iterator[tuple[slice, torch.Tensor]]) -> Iterator[tuple[slice, torch.Tensor]]:
    """The chunks of a level, cut into runs of at most BLOCK nodes."""
    for rows, chunk in logits:
        low = rows.start
        for block in chunk.split(BLOCK):
            yield slice(low, low := low + len(block)), block


def _split(level: _Level, rows: slice, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The draws of a run of nodes, one token later: node, token and count of every distinct outcome (m,), ascending."""
    found, count = _multinomials(level.key[rows], level.count[rows], torch.softmax(logits.double(), -1).cpu().numpy())
    node, token = np.divmod(found, logits.shape[-1])
    return node + rows.start, token, count


def _multinomials(keys: list[bytes], counts: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct outcomes of counts[i] draws from each p[i], ascending, as places in p (n, V) made flat; and how often each.

    One binomial for an outcome that is expected OFTEN, whatever n is; all other draws by inversion of the cumulative sum
    of what is left. `p` is used up. Each row is drawn from a generator of its own key, and from nothing of other rows.
    """
    width, philox = p.shape[1], _Philox()
    often, chance = _set_apart(p, counts)
    upto = torch.from_numpy(p).cumsum(-1).numpy()
    upto /= np.maximum(upto[:, -1:], np.finfo(float).tiny)
    begin = np.searchsorted(often, np.arange(len(p) + 1) * width).tolist()
    hits, rest, found = np.zeros(len(often), np.int64), counts.tolist(), []
    for i, key in enumerate(keys):
        generator, a, b = philox.at(key), begin[i], begin[i + 1]
        if a < b:  # numpy gives the last outcome what the others leave, and does not look at its probability
            *hits[a:b], rest[i] = generator.multinomial(rest[i], chance[a : b + 1]).tolist()
        found.append(upto[i].searchsorted(generator.random(rest[i]), "right"))
    seldom = np.repeat(np.arange(len(p)) * width, rest) + np.minimum(np.concatenate(found), width - 1)
    places, times = np.unique(seldom, return_counts=True)
    places, times = np.concatenate([places, often[hits > 0]]), np.concatenate([times, hits[hits > 0]])
    order = np.argsort(places)
    return places[order], times[order]


def _set_apart(p: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (m,) of outcomes expected OFTEN among MANY draws and their probabilities (m + 1,), which `p` loses."""
    often, many = np.zeros(p.shape, bool), counts > MANY
    often[many] = p[many] * counts[many, None] >= OFTEN
    places = np.flatnonzero(often)
    chance = np.append(p.ravel()[places], 0)
    p.ravel()[places] = 0
    return places, chance


class _Philox:
    """One generator moved from key to key: the numbers of a new one each time, in a tenth of the time."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.generator = np.random.Generator(self.bits)
        self.start = self.bits.state | {"buffer": [0] * 4}  # lists and tuples: read twice as fast as arrays
        self.start["state"] = {"counter": [0] * 4, "key": (0, 0)}

    def at(self, key: bytes) -> np.random.Generator:
        self.start["state"]["key"] = _WORDS.unpack(key)
        self.bits.state = self.start
        return self.generator


def _longer(text: bytes, piece: object) -> bytes:
    if piece is VOID:
        return UNREADABLE.encode()
    return text if piece is END else text + piece


def _tally(
    texts: list[dict[str, int]], level: _Level, pieces: Sequence[object], parent: np.ndarray,
    token: np.ndarray, count: np.ndarray,
) -> None:
    """Add finished answers to each prompt's `texts`; several paths may spell one text."""
    begun = [_whole(text) for text in level.text]
    ends = {t: _longer(b"", pieces[t]).decode("utf-8", "replace") for t in np.unique(token).tolist() if pieces[t] is not VOID}
    for node, owner, t, n in zip(parent.tolist(), level.owner[parent].tolist(), token.tolist(), count.tolist(), strict=True):
        if begun[node] is None or t not in ends:
            text = _longer(level.text[node], pieces[t]).decode("utf-8", "replace")
        else:  # behind whole characters a token spells itself: each is decoded once, not for every answer
            text = begun[node] + ends[t]
        found = texts[owner]
        found[text] = found.get(text, 0) + n


def _whole(text: bytes) -> str | None:
    """The text, unless it ends within a character or holds what is none."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _below(
    level: _Level, pieces: Sequence[object], parent: np.ndarray, token: np.ndarray, count: np.ndarray,
    state: np.ndarray,
) -> _Level:
    path = list(zip(parent.tolist(), token.tolist(), strict=True))
    return _Level(
        level.owner[parent], count, state,
        [hashlib.blake2b(level.key[node] + t.to_bytes(4, "little"), digest_size=16).digest() for node, t in path],
        [_longer(level.text[node], pieces[t]) for node, t in path],
    )
