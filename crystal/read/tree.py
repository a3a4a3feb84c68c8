"""Forward passes over trees of tokens: many prompts, and below each many answers that share their beginnings.

A tree is grown in rounds; every node is one token, computed once, and may hang below a node of any round before. Two ways,
chosen by `engine.tree`:

    RaggedTree   the prompts, every beginning that several of them share once, and round by round the nodes of all prompts,
                 form one flat row without padding: linear layers see exactly these tokens; attention is the registered
                 functions `ragged_prompts` and `ragged_tree`. The prompts' keys and values are kept, and the nodes'.
                 For models that prove themselves (`crystal.read.proof`)
    WholeTree    for any other causal LM (recurrent layers, sliding windows shorter than the prompt, ...): every node is
                 prompt + path from the beginning; the same law at the price of prompt length x nodes

Knows nothing of options, probabilities or text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import AttentionInterface

Prompts = Sequence[tuple[int, ...]]
ROOT = -1  # the parent of a prompt's first nodes
Kept = dict[int, tuple[torch.Tensor, torch.Tensor]]  # layer -> keys and values, where the layer is


# Rows are copied from place to place by `index_select`, never by `x[index]`: that takes six times as long on a CPU.


@dataclass
class Spread:
    """Rows of several prompts in one flat row, and the same rows in one table of equally many slots a prompt.

    A row may stand in several slots. A slot without a row holds a copy of another one's: finite, and seen by nobody.
    """

    prompts: int
    slots: int  # most rows that a prompt has
    place: torch.Tensor  # (rows,) where a row stands in the table made flat; one of its places
    row: torch.Tensor  # (prompts x slots,) which row stands there

    @classmethod
    def of(cls, prompt: np.ndarray, there: Callable[[np.ndarray], torch.Tensor]) -> Spread:
        """prompt (rows,): whose each row is, counted from 0, ascending. there: puts an array on the device."""
        count = np.bincount(prompt)
        slots = int(count.max())
        place = prompt * slots + np.arange(len(prompt)) - (np.cumsum(count) - count)[prompt]
        row = np.zeros(len(count) * slots, np.int64)
        row[place] = np.arange(len(prompt))
        return cls(len(count), slots, there(place), there(row))

    @staticmethod
    def size(prompt: np.ndarray) -> int:
        """Slots of the table, all prompts'."""
        count = np.bincount(prompt)
        return int(count.max()) * len(count)

    def table(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, ...) -> (prompts, slots, ...)."""
        return _select(rows, self.row).unflatten(0, (self.prompts, self.slots))

    def flat(self, table: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return _select(table.flatten(0, 1), self.place)


def _select(rows: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """rows[which], (n, ...) -> (len(which), ...), on the rows' device."""
    return rows.flatten(1).index_select(0, which.to(rows.device)).unflatten(1, rows.shape[1:])


@dataclass
class Beginnings:
    """The distinct beginnings of some prompts, each behind the shorter ones that it goes on from."""

    token: np.ndarray  # (n,) its last token
    position: np.ndarray  # (n,) of that token, from 0
    place: np.ndarray  # (n,) prompt x longest + position, of the first prompt that begins so
    of: np.ndarray  # (prompts, longest) the beginning that ends at each token; behind the prompt's last token, its whole

    @classmethod
    def among(cls, prompts: Prompts) -> Beginnings:
        number: dict[tuple[int, int], int] = {}  # (the beginning one token shorter, the token) -> the beginning
        longest, place = max(map(len, prompts)), []
        of = np.empty((len(prompts), longest), np.int64)
        for i, ids in enumerate(prompts):
            last = -1
            for position, token in enumerate(ids):
                last = number.setdefault((last, token), len(place))
                if last == len(place):
                    place.append(i * longest + position)
                of[i, position] = last
            of[i, len(ids) :] = last
        at = np.array(place)
        return cls(np.array([token for _, token in number]), at % longest, at, of)


@dataclass
class Packed(Spread):
    """The beginnings of the prompts as one flat row. kept: (prompts, heads, longest, width)."""

    kept: Kept = field(default_factory=dict)


def ragged_prompts(module, query, key, value, attention_mask, scaling, tree: Packed, softcap=None, s_aux=None, **_):
    """Causal attention of each prompt to itself: query (1, heads, tokens, width), key and value (1, kv heads, tokens, width)
    -> (1, tokens, heads, width), None. Only here are prompts padded, and
    a beginning that several share laid out for each.

    Padding stands behind, where a causal model's earlier positions never see it.
    """
    query, key, value = (tree.table(x[0].transpose(0, 1)).transpose(1, 2) for x in (query, key, value))
    tree.kept[module.layer_idx] = key.contiguous(), value.contiguous()
    if (group := query.shape[1] // key.shape[1]) > 1:
        key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    if softcap is None and s_aux is None:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    else:
        score = _scores(query @ key.mT, scaling, softcap)
        ahead = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).triu(1)
        sink = None if s_aux is None else s_aux.view(1, -1, 1, 1).expand(*score.shape[:-1], 1)
        out = _softmax(score.masked_fill(ahead, -torch.inf), sink).to(value.dtype) @ value
    return tree.flat(out.transpose(1, 2))[None], None


@dataclass
class Chunk:
    """A run of nodes of one round, and where each finds its prompt and its own path."""

    whole: RaggedTree
    nodes: slice  # their numbers
    prompts: slice
    spread: Spread
    path: torch.Tensor  # (n, depth) numbers of the node's ancestors and, last, its own; shorter ones filled up with anything
    mask: torch.Tensor  # (n, depth) 0, or -inf where a path is filled up

    def along(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the tree's nodes (nodes, heads, width) along each node's path: (n, depth, heads, 1, width)."""
        return _select(rows, self.path.flatten()).unflatten(0, self.path.shape).unsqueeze(3)

    def by_head(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, heads, group, ...) -> (prompts x heads, slots x group, ...): what meets the keys of a prompt's head at once."""
        return self.spread.table(rows).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def by_node(self, table: torch.Tensor, heads: int) -> torch.Tensor:
        """The way back."""
        table = table.unflatten(0, (-1, heads)).unflatten(2, (self.spread.slots, -1))
        return self.spread.flat(table.transpose(1, 2))


def ragged_tree(module, query, key, value, attention_mask, scaling, tree: Chunk, softcap=None, s_aux=None, **_):
    """Attention of a chunk of nodes to (its prompt) + (its own path), one softmax over both; shapes as in `ragged_prompts`.

    A prompt's keys are never copied per node; only the short paths are gathered. What a chunk says of places lies on the
    engine's device and goes to the layer's, which is another one where a model is spread over several GPUs.
    """
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    heads = key.shape[1]
    query = query.unflatten(1, (heads, -1))  # (n, heads, group, width)
    near_keys, near_values = map(tree.along, tree.whole.write(module.layer_idx, tree.nodes, key, value))
    far_keys, far_values = (x[tree.prompts].flatten(0, 1) for x in tree.whole.packed.kept[module.layer_idx])
    far_mask, near_mask = tree.whole.mask[tree.prompts].to(query.device), tree.mask.to(query.device)

    far = _scores(tree.by_head(query) @ far_keys.mT, scaling, softcap)
    far = far.unflatten(0, (-1, heads)).add_(far_mask[:, None, None]).flatten(0, 1)
    near = _scores((_precise(query)[:, None] * _precise(near_keys)).sum(-1), scaling, softcap)  # (n, depth, heads, group)
    near = tree.by_head(near.add_(near_mask[..., None, None]).permute(0, 2, 3, 1))
    sink = None if s_aux is None else tree.by_head(s_aux.view(1, heads, -1, 1).expand(*query.shape[:3], 1))
    weight = _softmax(torch.cat([far, near], -1), sink).to(query.dtype)
    out = tree.by_node(weight[..., : far.shape[-1]] @ far_values, heads)
    weight = tree.by_node(weight[..., far.shape[-1] :], heads)
    for w, v in zip(weight.unbind(-1), near_values.unbind(1), strict=True):  # one product of so thin matrices is slower
        out.addcmul_(w[..., None], v)
    return out.flatten(1, 2)[None], None


def _precise(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scores(product: torch.Tensor, scaling: float, softcap: float | None) -> torch.Tensor:
    score = _precise(product) * scaling
    return score if softcap is None else torch.tanh(score / softcap) * softcap


def _softmax(score: torch.Tensor, sink: torch.Tensor | None) -> torch.Tensor:
    """Over the last dimension. sink (..., 1): the score of an attention sink, a key without a value."""
    if sink is None:
        return score.softmax(-1)
    return torch.cat([score, sink.to(score.dtype)], -1).softmax(-1)[..., :-1]


for _name, _function in (("ragged_tree", ragged_tree), ("ragged_prompts", ragged_prompts)):
    AttentionInterface.register(_name, _function)  # no mask is registered under the names, so none is made


@contextmanager
def _attention(model, name: str):
    """The model is given back as it was: with `ragged_tree` left on, `generate` would ignore padding masks."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextmanager
def _head_at(model, place: torch.Tensor):
    """The output layer sees one position of each text, place (texts,), and gives logits (texts, 1, vocabulary)."""
    def pick(_, hidden: tuple[torch.Tensor]) -> torch.Tensor:
        return hidden[0][torch.arange(len(place)), place.to(hidden[0].device)].unsqueeze(1)

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


class RaggedTree:
    """See the module. `roots` (prompts, vocabulary): logits after each prompt. `nodes`: how many there are, all prompts'."""

    def __init__(self, engine, prompts: Prompts) -> None:
        self.engine, self.nodes, self.kept = engine, 0, {}
        self.length = np.array([len(p) for p in prompts])
        self.path, self.depth = np.zeros((0, 0), np.int64), np.zeros(0, np.int64)
        self.roots = self._prefill(prompts)
        behind = np.where(np.arange(self.length.max()) < self.length[:, None], 0, -np.inf)
        self.mask = self.engine.there(behind.astype(np.float32))

    def _prefill(self, prompts: Prompts) -> torch.Tensor:
        """Logits behind the prompts; the keys and values of their tokens go to `packed`."""
        found, there = Beginnings.among(prompts), self.engine.there
        self.packed = Packed(*found.of.shape, there(found.place), there(found.of.flatten()))
        with _attention(self.engine.model, "ragged_prompts"):
            logits = self.engine.forward(
                there(found.token)[None], position_ids=there(found.position)[None], use_cache=False,
                logits_to_keep=found.of[:, -1].tolist(), tree=self.packed)
        return logits[0]

    def write(self, layer: int, rows: slice, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep keys and values (n, heads, width) of the nodes `rows`; returns what is kept of all (nodes or more, ...)."""
        kept = self.kept.get(layer, (key[:0], value[:0]))
        if len(kept[0]) < self.nodes:
            size = max(self.nodes, 2 * len(kept[0]))
            kept = self.kept[layer] = tuple(torch.cat([x, x.new_empty(size - len(x), *x.shape[1:])]) for x in kept)
        for whole, part in zip(kept, (key, value), strict=True):
            whole[rows] = part
        return kept

    def grow(self, owner: np.ndarray, parent: np.ndarray, token: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        """Compute more nodes: owner (n,) prompt indices, ascending; parent (n,) numbers of earlier nodes, or ROOT.

        Nodes are numbered in the order in which they are asked for. Yields (rows of these n, logits (rows, vocabulary)) in
        order; their children may be asked for once all are consumed.
        """
        first = self.nodes
        self._note(parent)
        ids, place = self.engine.there(token), self.engine.there(self.length[owner] - 1 + self.depth[first:])
        for rows in self._runs(owner):
            chunk = self._chunk(owner[rows], slice(first + rows.start, first + rows.stop))
            with _attention(self.engine.model, "ragged_tree"):
                logits = self.engine.forward(ids[None, rows], position_ids=place[None, rows], use_cache=False, tree=chunk)
            yield rows, logits[0]

    def _runs(self, owner: np.ndarray) -> Iterator[slice]:
        """Rows of a chunk each; the last one is up to half as large again, lest a small one be left; shorter runs where one
        prompt has so many nodes that the other ones' slots would be empty."""
        low, most = 0, self.engine.chunk
        while low < len(owner):
            high = len(owner) if len(owner) - low <= 1.5 * most else low + most
            while high - low > 1 and Spread.size(owner[low:high] - owner[low]) > 4 * most:
                high = (low + high) // 2
            yield slice(low, high)
            low = high

    def _note(self, parent: np.ndarray) -> None:
        """Number new nodes: `path` (nodes, deepest) holds the numbers from a prompt's first node to the node itself."""
        depth = np.where(parent == ROOT, 0, self.depth[parent] if self.nodes else 0) + 1
        more = max(0, int(depth.max(initial=0)) - self.path.shape[1])
        above = np.pad(self.path, ((0, 0), (0, more)))
        path = above[parent] if self.nodes else np.zeros((len(parent), above.shape[1]), np.int64)
        path[np.arange(len(parent)), depth - 1] = self.nodes + np.arange(len(parent))
        self.path, self.depth = np.concatenate([above, path]), np.concatenate([self.depth, depth])
        self.nodes += len(parent)

    def _chunk(self, owner: np.ndarray, nodes: slice) -> Chunk:
        depth = self.depth[nodes]
        path, beyond = self.path[nodes, : depth.max()], np.arange(depth.max()) >= depth[:, None]
        return Chunk(
            whole=self, nodes=nodes, prompts=slice(int(owner[0]), int(owner[-1]) + 1),
            spread=Spread.of(owner - owner[0], self.engine.there), path=self.engine.there(np.where(beyond, 0, path)),
            mask=self.engine.there(np.where(beyond, -np.inf, 0).astype(np.float32)),
        )


class WholeTree:
    """See the module; same use as RaggedTree."""

    def __init__(self, engine, prompts: Prompts) -> None:
        self.engine, self.prompts = engine, prompts
        self.paths: list[tuple[int, ...]] = []
        self.roots = torch.cat([logits for _, logits in self._run(list(prompts))])

    @property
    def nodes(self) -> int:
        return len(self.paths)

    def grow(self, owner: np.ndarray, parent: np.ndarray, token: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        above = [() if p == ROOT else self.paths[p] for p in parent.tolist()]
        paths = [(*path, t) for path, t in zip(above, token.tolist(), strict=True)]
        self.paths += paths
        yield from self._run([self.prompts[o] + path for o, path in zip(owner.tolist(), paths, strict=True)])

    def _run(self, texts: list[tuple[int, ...]]) -> Iterator[tuple[slice, torch.Tensor]]:
        step = max(1, 16 * self.engine.chunk // max(map(len, texts)))
        for low in range(0, len(texts), step):
            part = [torch.tensor(t) for t in texts[low : low + step]]
            ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True).to(self.engine.device)
            with _head_at(self.engine.model, torch.tensor([len(t) - 1 for t in part])):
                yield slice(low, low + len(part)), self.engine.forward(ids, use_cache=False)[:, 0]
