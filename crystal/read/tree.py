"""Forward passes over trees of tokens: prompts, and below each answers that share beginnings.

A tree grows in rounds; every node is one token, computed once, below a prompt or an earlier node.

    RaggedTree   the prompts, every beginning that they share once, and in each round the nodes of
                 all prompts form one flat row without padding; only attention knows whose token is
                 whose. For models that prove themselves
    WholeTree    any other causal LM (recurrent layers, short windows, ...): every node is prompt +
                 path from the beginning; the same logits at the price of prompt length x nodes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AttentionInterface

Prompts = Sequence[tuple[int, ...]]
ROOT = -1  # the parent of a prompt's first nodes


def _select(rows: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """rows[which], (n, ...) -> (len(which), ...). `x[index]` takes six times as long on a CPU."""
    return rows.flatten(1).index_select(0, which.to(rows.device)).unflatten(1, rows.shape[1:])


@dataclass
class Spread:
    """Rows of several prompts in one flat row, and in a table of equally many slots a prompt.

    A row may stand in several slots. A slot without a row holds a copy of another: seen by nobody.
    """

    prompts: int
    slots: int  # most rows that a prompt has
    place: torch.Tensor  # (rows,) where a row stands in the table made flat; one of its places
    row: torch.Tensor  # (prompts x slots,) which row stands there

    @classmethod
    def of(cls, prompt: np.ndarray, there: Callable[[np.ndarray], torch.Tensor]) -> Spread:
        """prompt (rows,): whose each row is, ascending from 0. there: `Engine.there`."""
        count = np.bincount(prompt)
        slots = int(count.max())
        place = prompt * slots + np.arange(len(prompt)) - (np.cumsum(count) - count)[prompt]
        row = np.zeros(len(count) * slots, np.int64)
        row[place] = np.arange(len(prompt))
        return cls(len(count), slots, there(place), there(row))

    def table(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, ...) -> (prompts, slots, ...)."""
        return _select(rows, self.row).unflatten(0, (self.prompts, self.slots))

    def flat(self, table: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return _select(table.flatten(0, 1), self.place)


def ragged_prompts(
    module, query, key, value, attention_mask, scaling, tree, softcap=None, s_aux=None, **_
):
    """Causal attention of each prompt to itself: (1, heads, tokens, width) -> (1, tokens, heads,
    width), None. Only here are prompts padded, behind, where nobody sees it.
    """
    table = tree.packed.table
    query, key, value = (table(x[0].transpose(0, 1)).transpose(1, 2) for x in (query, key, value))
    tree.far[module.layer_idx] = key.contiguous(), value.contiguous()
    if (group := query.shape[1] // key.shape[1]) > 1:
        key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    if softcap is None and s_aux is None:
        attend = torch.nn.functional.scaled_dot_product_attention
        out = attend(query, key, value, is_causal=True, scale=scaling)
    else:
        score = _scores(query @ key.mT, scaling, softcap)
        ahead = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).triu(1)
        sink = None if s_aux is None else s_aux.view(1, -1, 1, 1).expand(*score.shape[:-1], 1)
        out = _softmax(score.masked_fill(ahead, -torch.inf), sink).to(value.dtype) @ value
    return tree.packed.flat(out.transpose(1, 2))[None], None


@dataclass
class Chunk:
    """Some nodes of one round, and where each finds its prompt and its own path."""

    whole: RaggedTree
    nodes: slice  # their numbers
    prompts: slice
    spread: Spread
    path: torch.Tensor  # (n, depth) the node's ancestors, last its own number; filled up with 0
    mask: torch.Tensor  # (n, depth) 0, or -inf where a path is filled up

    def along(self, rows: torch.Tensor) -> torch.Tensor:
        """Of rows (nodes, heads, width) those along each path: (n, depth, heads, 1, width)."""
        return _select(rows, self.path.flatten()).unflatten(0, self.path.shape).unsqueeze(3)

    def by_head(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, heads, group, ...) -> (prompts x heads, slots x group, ...): by their keys."""
        return self.spread.table(rows).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def by_node(self, table: torch.Tensor, heads: int) -> torch.Tensor:
        """The way back."""
        table = table.unflatten(0, (-1, heads)).unflatten(2, (self.spread.slots, -1))
        return self.spread.flat(table.transpose(1, 2))


def ragged_tree(
    module, query, key, value, attention_mask, scaling, tree: Chunk, softcap=None, s_aux=None, **_
):
    """Attention of nodes to (their prompt) + (their path), one softmax over both; shapes as above.

    A prompt's keys are never copied per node; only the short paths are gathered.
    """
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    heads, layer = key.shape[1], module.layer_idx
    query = query.unflatten(1, (heads, -1))  # (n, heads, group, width)
    near_keys, near_values = map(tree.along, tree.whole.write(layer, tree.nodes, key, value))
    far_keys, far_values = (x[tree.prompts].flatten(0, 1) for x in tree.whole.far[layer])
    far_mask = tree.whole.mask[tree.prompts].to(query.device)  # layers may lie on other devices
    near_mask = tree.mask.to(query.device)
    far = _scores(tree.by_head(query) @ far_keys.mT, scaling, softcap)
    far = far.unflatten(0, (-1, heads)).add_(far_mask[:, None, None]).flatten(0, 1)
    product = (_precise(query)[:, None] * _precise(near_keys)).sum(-1)  # (n, depth, heads, group)
    near = _scores(product, scaling, softcap).add_(near_mask[..., None, None])
    near = tree.by_head(near.permute(0, 2, 3, 1))
    sink = None
    if s_aux is not None:
        sink = tree.by_head(s_aux.view(1, heads, -1, 1).expand(*query.shape[:3], 1))
    weight = _softmax(torch.cat([far, near], -1), sink).to(query.dtype)
    out = tree.by_node(weight[..., : far.shape[-1]] @ far_values, heads)
    weight = tree.by_node(weight[..., far.shape[-1] :], heads)
    # one product of matrices so thin is slower
    for w, v in zip(weight.unbind(-1), near_values.unbind(1), strict=True):
        out.addcmul_(w[..., None], v)
    return out.flatten(1, 2)[None], None


def _precise(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scores(product: torch.Tensor, scaling: float, softcap: float | None) -> torch.Tensor:
    score = _precise(product) * scaling
    return score if softcap is None else torch.tanh(score / softcap) * softcap


def _softmax(score: torch.Tensor, sink: torch.Tensor | None) -> torch.Tensor:
    """Over the last dimension. sink (..., 1): the score of a key without a value."""
    if sink is None:
        return score.softmax(-1)
    return torch.cat([score, sink.to(score.dtype)], -1).softmax(-1)[..., :-1]


for _function in (ragged_tree, ragged_prompts):  # with no mask under these names, none is made
    AttentionInterface.register(_function.__name__, _function)


class RaggedTree:
    """See the module. roots (prompts, vocabulary): logits behind each prompt. nodes: how many.

    packed: the beginnings of the prompts as one flat row; by layer, where that is, far holds their
    keys and values (prompts, heads, longest, width), near those of the nodes (nodes, heads, width).
    """

    def __init__(self, engine, prompts: Prompts) -> None:
        self.engine, self.nodes, self.far, self.near = engine, 0, {}, {}
        self.length = np.array([len(p) for p in prompts])
        self.path, self.depth = np.zeros((0, 0), np.int64), np.zeros(0, np.int64)
        self.roots = self._prefill(prompts)
        self.mask = engine.there(_behind(self.length))

    def _prefill(self, prompts: Prompts) -> torch.Tensor:
        there = self.engine.there
        token, position, place, of = _beginnings(prompts)
        self.packed = Spread(*of.shape, there(place), there(of.flatten()))
        how = {"tree": self, "logits_to_keep": of[:, -1].tolist()}
        return self._forward("ragged_prompts", there(token), there(position), **how)

    def _forward(self, attention: str, ids: torch.Tensor, place: torch.Tensor, **how):
        config = self.engine.model.config
        before, config._attn_implementation = config._attn_implementation, attention
        try:
            how |= {"position_ids": place[None], "use_cache": False}
            return self.engine.forward(ids[None], **how)[0]
        finally:  # else `generate` would ignore padding
            config._attn_implementation = before

    def write(self, layer: int, rows: slice, key: torch.Tensor, value: torch.Tensor):
        """Keep keys and values (n, heads, width) of the nodes `rows`; returns both of all nodes."""
        kept = self.near.get(layer, (key[:0], value[:0]))
        if len(kept[0]) < self.nodes:
            more = max(self.nodes, 2 * len(kept[0])) - len(kept[0])
            kept = tuple(torch.cat([x, x.new_empty(more, *x.shape[1:])]) for x in kept)
            self.near[layer] = kept
        for whole, part in zip(kept, (key, value), strict=True):
            whole[rows] = part
        return kept

    def grow(
        self, owner: np.ndarray, parent: np.ndarray, token: np.ndarray
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Compute more nodes, numbered as they are asked for.

        owner (n,): prompt indices, ascending. parent (n,): nodes, or ROOT. Yields (rows of these n,
        logits (rows, vocabulary)) in order; ask for children once all are consumed.
        """
        first, there = self.nodes, self.engine.there
        self._note(parent)
        ids, place = there(token), there(self.length[owner] - 1 + self.depth[first:])
        for rows in self._runs(owner):
            chunk = self._chunk(owner[rows], slice(first + rows.start, first + rows.stop))
            yield rows, self._forward("ragged_tree", ids[rows], place[rows], tree=chunk)

    def _runs(self, owner: np.ndarray) -> Iterator[slice]:
        """Rows of a chunk each; the last is up to half as large again. Fewer where one prompt has
        so many nodes that most slots of the others would be empty.
        """
        low, most = 0, self.engine.chunk
        while low < len(owner):
            high = len(owner) if len(owner) - low <= 1.5 * most else low + most
            while high - low > 1:
                count = np.bincount(owner[low:high] - owner[low])
                if int(count.max()) * len(count) <= 4 * most:
                    break
                high = (low + high) // 2
            yield slice(low, high)
            low = high

    def _note(self, parent: np.ndarray) -> None:
        """Number new nodes: `path` (nodes, deepest) goes from a prompt's first node to the node."""
        depth = np.append(self.depth, 0)[parent] + 1  # ROOT is the last place
        more = max(0, int(depth.max(initial=0)) - self.path.shape[1])
        above = np.pad(self.path, ((0, 1), (0, more)))
        path = above[parent]
        path[np.arange(len(parent)), depth - 1] = self.nodes + np.arange(len(parent))
        self.path = np.concatenate([above[:-1], path])
        self.depth = np.concatenate([self.depth, depth])
        self.nodes += len(parent)

    def _chunk(self, owner: np.ndarray, nodes: slice) -> Chunk:
        depth, there = self.depth[nodes], self.engine.there
        prompts = slice(int(owner[0]), int(owner[-1]) + 1)
        path, mask = there(self.path[nodes, : depth.max()]), there(_behind(depth))
        return Chunk(self, nodes, prompts, Spread.of(owner - owner[0], there), path, mask)


def _behind(length: np.ndarray) -> np.ndarray:
    """A mask (n, longest) for rows of these lengths: 0, and -inf where a row is at its end."""
    return np.where(np.arange(length.max()) < length[:, None], 0, -np.inf).astype(np.float32)


def _beginnings(prompts: Prompts) -> tuple[np.ndarray, ...]:
    """The distinct beginnings of the prompts, each behind those that it goes on from.

    Of each (n,): last token; its position; prompt x longest + position of the first prompt that
    begins so. And (prompts, longest): the beginning that ends at each token, or the whole prompt.
    """
    number: dict[tuple[int, int], int] = {}  # (one token shorter, the token) -> the beginning
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
    return np.array([token for _, token in number]), at % longest, at, of


class WholeTree:
    """See the module; same use as RaggedTree."""

    def __init__(self, engine, prompts: Prompts) -> None:
        self.engine, self.prompts = engine, prompts
        self.paths: list[tuple[int, ...]] = []  # of every node below its prompt
        self.roots = torch.cat([logits for _, logits in self._run(list(prompts))])

    @property
    def nodes(self) -> int:
        return len(self.paths)

    def grow(
        self, owner: np.ndarray, parent: np.ndarray, token: np.ndarray
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        asked = zip(parent.tolist(), token.tolist(), strict=True)
        paths = [(*(() if p == ROOT else self.paths[p]), t) for p, t in asked]
        self.paths += paths
        whose = zip(owner.tolist(), paths, strict=True)
        yield from self._run([(*self.prompts[o], *path) for o, path in whose])

    def _run(self, texts: list[tuple[int, ...]]) -> Iterator[tuple[slice, torch.Tensor]]:
        step, low = max(1, 16 * self.engine.chunk // max(map(len, texts))), 0
        while low < len(texts):
            some = texts[low : low + step]
            if self.engine.switch:  # short and long texts are no good company
                long = [len(text) > self.engine.switch for text in some]
                some = some[: [*long, not long[0]].index(not long[0])]
            part = [torch.tensor(t) for t in some]
            ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True).to(self.engine.device)
            with _head_at(self.engine.model, torch.tensor([len(t) - 1 for t in part])):
                logits = self.engine.forward(ids, use_cache=False)[:, 0]
            yield slice(low, low + len(part)), logits
            low += len(part)


def _head_at(model, place: torch.Tensor):
    """Within it the output layer sees one position of each text, place (texts,)."""

    def pick(_, hidden: tuple[torch.Tensor]) -> torch.Tensor:
        each = torch.arange(len(place))
        return hidden[0][each, place.to(hidden[0].device)].unsqueeze(1)

    return model.get_output_embeddings().register_forward_pre_hook(pick)
