"""The tree sampler: n independent answers for the price of the distinct ones.

At every node the number of draws that reached it is split over the next token by one multinomial draw. The law is exactly
that of n i.i.d. ancestral samples at temperature 1, nothing truncated; only the order of the samples is lost.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .automaton import END, START, VOID, Table
from .engine import Engine
from .errors import CrystalError
from .tasks import Task

UNREADABLE = "\ufffd"  # the text of an answer that ran into an id which stands for no text


@dataclass(frozen=True)
class _Node:
    """Draws that share a beginning. `key`: digest of seed, prompt and path, from which the node's own generator starts."""

    owner: int  # the prompt
    count: int
    text: bytes
    state: int
    key: bytes


def draw(
    engine: Engine, prompt_ids: tuple[int, ...], n: int, *, seed: int, max_tokens: int, task: Task | None = None,
) -> dict[str, int]:
    """`draw_many` of one prompt."""
    return draw_many(engine, [prompt_ids], n, seed=seed, max_tokens=max_tokens, task=task)[0]


def draw_many(
    engine: Engine, prompts: Sequence[tuple[int, ...]], n: int, *, seed: int, max_tokens: int, task: Task | None = None,
) -> list[dict[str, int]]:
    """Draw `n` answers to each prompt, all in one tree: for every prompt, text -> how often, most frequent first.

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
    table = engine.table(task) if task else None
    depth = min(max_tokens, *map(engine.room, prompts))
    tree = engine.tree(prompts, depth - 1)
    level = [_Node(i, n, b"", START, _root_key(seed, ids)) for i, ids in enumerate(prompts)]
    texts: list[Counter[str]] = [Counter() for _ in prompts]
    logits = iter([(slice(0, len(level)), tree.roots)])
    for step in range(1, depth + 1):
        open_: list[tuple[int, int, _Node]] = []  # parent, token, child; ordered by prompt, as the level above is
        for rows, chunk in logits:
            for parent, p in enumerate(_probabilities(chunk), rows.start):
                for token, child in _split(level[parent], p, engine, table):
                    if child.state < 0 or step == depth:
                        texts[child.owner][child.text.decode("utf-8", "replace")] += child.count
                    else:
                        open_.append((parent, token, child))
        if not open_:
            break
        parent, token = np.array([o[:2] for o in open_], np.int64).T
        level = [child for *_, child in open_]
        logits = tree.grow(np.array([node.owner for node in level]), parent, token)
    return [dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))) for found in texts]


def _root_key(seed: int, prompt_ids: tuple[int, ...]) -> bytes:
    return hashlib.blake2b(repr((int(seed), tuple(prompt_ids))).encode(), digest_size=16).digest()


def _probabilities(logits: torch.Tensor) -> np.ndarray:
    return torch.softmax(logits.double(), -1).cpu().numpy()


def _split(node: _Node, p: np.ndarray, engine: Engine, table: Table | None) -> list[tuple[int, _Node]]:
    """The node's draws, one token later: (token, child); a child whose state is negative is finished."""
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(node.key, "little")))
    tokens, counts = _multinomial(rng, node.count, p)
    states = np.full(len(tokens), START) if table is None else table.follow(node.state, engine.vocabulary.rank[tokens])
    children = []
    for token, count, state in zip(tokens.tolist(), counts.tolist(), states.tolist(), strict=True):
        piece = engine.pieces[token]
        if piece is END:
            text, state = node.text, -1
        elif piece is VOID:
            text, state = UNREADABLE.encode(), -1
        else:
            text = node.text + piece
        key = hashlib.blake2b(node.key + token.to_bytes(4, "little"), digest_size=16).digest()
        children.append((token, _Node(node.owner, count, text, state, key)))
    return children


def _multinomial(rng: np.random.Generator, n: int, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct outcomes, ascending, and their counts among n draws from p (float64, sums to 1 up to rounding).

    Few draws: each by inversion of the cumulative sum. Many: one binomial per outcome, whose cost does not grow with n.
    """
    if n <= len(p):
        total = p.cumsum()
        found = np.searchsorted(total, rng.random(n) * total[-1], side="right")
        return np.unique(np.minimum(found, len(p) - 1), return_counts=True)
    counts = rng.multinomial(n, p / p.sum())
    tokens = np.flatnonzero(counts)
    return tokens, counts[tokens]
