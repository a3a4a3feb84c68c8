"""Forward passes over trees of tokens: many prompts, and below each many answers that share their beginnings.

A tree is grown level by level; every node is one token, computed once. Two ways, chosen by `engine.tree`:

    RaggedTree   the prompts, and level by level the nodes of all prompts, form one flat row without padding: linear layers
                 see exactly these tokens; attention is the registered functions `ragged_prompts` and `ragged_tree`. The
                 prompts' keys and values are kept
    WholeTree    the fallback for any other causal LM (recurrent layers, sliding windows shorter than the prompt, ...):
                 every node is prompt + path from the beginning; the same law at the price of prompt length x nodes

Knows nothing of options, probabilities or text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import AttentionInterface

Prompts = Sequence[tuple[int, ...]]


@dataclass
class Level:
    """Keys and values of the nodes at one depth: per layer (nodes, heads, width), where the layer is; allocated when first
    written."""

    nodes: int
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def write(self, layer: int, rows: slice, key: torch.Tensor, value: torch.Tensor) -> None:
        if layer not in self.keys:
            self.keys[layer] = key.new_empty(self.nodes, *key.shape[1:])
            self.values[layer] = value.new_empty(self.nodes, *value.shape[1:])
        self.keys[layer][rows], self.values[layer][rows] = key, value


@dataclass
class Chunk:
    """A run of consecutive nodes of one level, and where each finds its prompt and its ancestors."""

    tree: RaggedTree
    rows: slice
    prompt: torch.Tensor  # (n,) the node's prompt, counted from the chunk's first
    prompts: slice
    slots: int  # most nodes that a prompt has in the chunk
    place: torch.Tensor  # (n x heads,) where `spread` puts a node's heads
    ancestors: torch.Tensor  # (n, depth - 1): column d indexes level d

    def path(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Keys (n, heads, depth, width) and, level by level, values (n, heads, width) of each node's own path, itself last."""
        *above, level = self.tree.levels
        level.write(layer, self.rows, key, value)
        columns = zip(above, self.ancestors.to(key.device).T, strict=True)
        up = [(past.keys[layer][column], past.values[layer][column]) for past, column in columns]
        keys, values = zip(*up, (key, value), strict=True)
        return torch.stack(keys, 2), values

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, heads, ...) -> (prompts, heads, slots, ...), zeros between: a prompt's nodes meet its keys in one product."""
        shape = (self.prompts.stop - self.prompts.start, rows.shape[1], self.slots, *rows.shape[2:])
        out = rows.new_zeros(shape)
        out.flatten(0, 2)[self.place.to(rows.device)] = rows.flatten(0, 1)
        return out

    def gather(self, spread: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return spread.flatten(0, 2).index_select(0, self.place.to(spread.device)).unflatten(0, (-1, spread.shape[1]))


def ragged_tree(module, query, key, value, attention_mask, scaling, tree: Chunk, softcap=None, **_):
    """Attention of a chunk of nodes to (its prompt) + (its own path), one softmax over both.

    query (1, heads, n, width), key and value (1, kv heads, n, width) -> (1, n, heads, width), None.
    A prompt's keys are never copied per node; only the short paths are gathered. What a chunk says of places lies on the
    engine's device and goes to the layer's, which is another one where a model is spread over several GPUs.
    """
    layer, kv = module.layer_idx, key.shape[1]
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    n, heads, width = query.shape
    query = query.reshape(n, kv, heads // kv, width)
    keys, values = tree.path(layer, key, value)
    far_keys, far_values, far_mask = tree.tree.prompt(layer, tree.prompts)
    far = tree.gather(torch.einsum("bkmgd,bkld->bkmgl", tree.spread(query), far_keys))
    near = query @ keys.mT
    score = torch.cat([far, near], -1)
    score = score.to(torch.promote_types(score.dtype, torch.float32)) * scaling
    if softcap is not None:
        score = torch.tanh(score / softcap) * softcap
    score[..., : far.shape[-1]] += far_mask[tree.prompt].to(score.device)[:, None, None]
    weight = score.softmax(-1).to(query.dtype)
    far, near = weight.split([far.shape[-1], near.shape[-1]], -1)
    out = tree.gather(torch.einsum("bkmgl,bkld->bkmgd", tree.spread(far), far_values))
    for weight, value in zip(near.unbind(-1), values, strict=True):  # a product of so thin matrices takes thrice the time
        out.addcmul_(weight[..., None], value[:, :, None])
    return out.reshape(1, n, heads, -1), None


@dataclass
class Packed:
    """The prompts as one flat row, and what is kept of them: layer -> keys and values (prompts, heads, longest, width)."""

    prompts: int
    longest: int
    place: torch.Tensor  # (tokens,) where a token stands in the padded prompts, made flat
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]]

    def pad(self, rows: torch.Tensor) -> torch.Tensor:
        """(1, heads, tokens, width) -> (prompts, heads, longest, width), zeros behind the shorter ones."""
        out = rows.new_zeros(self.prompts * self.longest, rows.shape[1], rows.shape[3])
        out[self.place.to(rows.device)] = rows[0].transpose(0, 1)
        return out.unflatten(0, (self.prompts, self.longest)).transpose(1, 2)

    def unpad(self, padded: torch.Tensor) -> torch.Tensor:
        """(prompts, heads, longest, width) -> (1, tokens, heads, width)."""
        return padded.transpose(1, 2).flatten(0, 1).index_select(0, self.place.to(padded.device))[None]


def ragged_prompts(module, query, key, value, attention_mask, scaling, tree: Packed, softcap=None, **_):
    """Causal attention of each prompt to itself; shapes as in `ragged_tree`. Only here is anything padded.

    Padding stands behind, where a causal model's earlier positions never see it.
    """
    query, key, value = map(tree.pad, (query, key, value))
    tree.kept[module.layer_idx] = key, value
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    if softcap is None:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    else:
        score = torch.tanh((query @ key.mT).to(torch.promote_types(query.dtype, torch.float32)) * scaling / softcap) * softcap
        ahead = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).triu(1)
        out = score.masked_fill(ahead, -torch.inf).softmax(-1).to(value.dtype) @ value
    return tree.unpad(out), None


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


class RaggedTree:
    """See the module. `roots` (prompts, vocabulary): logits after each prompt."""

    def __init__(self, engine, prompts: Prompts) -> None:
        self.engine, self.levels = engine, []
        self.lengths = torch.tensor([len(p) for p in prompts], device=engine.device)
        self.ancestors = np.zeros((0, 0), np.int64)
        self.roots = self._prefill(prompts)
        place = torch.arange(int(self.lengths.max()), device=engine.device)
        self.mask = torch.zeros(len(prompts), len(place), device=engine.device)
        self.mask[place >= self.lengths[:, None]] = -torch.inf

    def _prefill(self, prompts: Prompts) -> torch.Tensor:
        """Logits behind the prompts, each prompt token computed once and no other; their keys and values go to `packed`."""
        there = lambda x: torch.from_numpy(x).to(self.engine.device)  # noqa: E731
        length = np.array([len(p) for p in prompts])
        end, longest = np.cumsum(length), int(length.max())
        position = np.arange(end[-1]) - np.repeat(end - length, length)
        place = np.repeat(np.arange(len(prompts)) * longest, length) + position
        self.packed = Packed(len(prompts), longest, there(place), {})
        with _attention(self.engine.model, "ragged_prompts"):
            logits = self.engine.forward(
                there(np.concatenate([np.array(p) for p in prompts]))[None], position_ids=there(position)[None],
                use_cache=False, logits_to_keep=(end - 1).tolist(), tree=self.packed)
        return logits[0]

    def prompt(self, layer: int, prompts: slice) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        keys, values = self.packed.kept[layer]
        return keys[prompts], values[prompts], self.mask[prompts]

    def grow(self, owner: np.ndarray, parent: np.ndarray, token: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        """Compute the next level: owner (n,) prompt indices, ascending; parent (n,) indices into the last level.

        Yields (rows, logits (rows, vocabulary)) in order; the level may be grown from once all are consumed.
        """
        if self.levels:
            self.ancestors = np.concatenate([self.ancestors[parent], parent[:, None]], axis=1)
        else:
            self.ancestors = np.zeros((len(owner), 0), np.int64)
        self.levels.append(Level(len(owner)))
        ids, place = torch.from_numpy(token).to(self.engine.device), self.lengths - 1 + len(self.levels)
        for low in range(0, len(owner), self.engine.chunk):
            rows = slice(low, min(low + self.engine.chunk, len(owner)))
            chunk = self._chunk(owner, rows)
            where = place[chunk.prompts][chunk.prompt]
            with _attention(self.engine.model, "ragged_tree"):
                logits = self.engine.forward(ids[None, rows], position_ids=where[None], use_cache=False, tree=chunk)
            yield rows, logits[0]

    def _chunk(self, owner: np.ndarray, rows: slice) -> Chunk:
        own = owner[rows] - owner[rows.start]
        count = np.bincount(own)
        slot = np.arange(len(own)) - (np.cumsum(count) - count)[own]
        slots, heads = int(count.max()), self.packed.kept[0][0].shape[1]
        place = (own * heads * slots + slot)[:, None] + np.arange(heads) * slots
        there = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(self.engine.device)  # noqa: E731
        return Chunk(
            tree=self, rows=rows, prompt=there(own), slots=slots, place=there(place.ravel()),
            prompts=slice(int(owner[rows.start]), int(owner[rows.stop - 1]) + 1), ancestors=there(self.ancestors[rows]),
        )


class WholeTree:
    """See the module; same use as RaggedTree."""

    def __init__(self, engine, prompts: Prompts) -> None:
        self.engine, self.prompts = engine, prompts
        self.paths: list[tuple[int, ...]] = []
        self.roots = torch.cat([logits for _, logits in self._run(list(prompts))])

    def grow(self, owner: np.ndarray, parent: np.ndarray, token: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        above = [self.paths[p] for p in parent] if self.paths else [()] * len(owner)
        self.paths = [(*path, int(t)) for path, t in zip(above, token, strict=True)]
        yield from self._run([self.prompts[o] + path for o, path in zip(owner, self.paths, strict=True)])

    def _run(self, texts: list[tuple[int, ...]]) -> Iterator[tuple[slice, torch.Tensor]]:
        step = max(1, 16 * self.engine.chunk // max(map(len, texts)))
        for low in range(0, len(texts), step):
            part = [torch.tensor(t) for t in texts[low : low + step]]
            ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True).to(self.engine.device)
            last, where = torch.unique(torch.tensor([len(t) - 1 for t in part]), return_inverse=True)
            logits = self.engine.forward(ids, use_cache=False, logits_to_keep=last.tolist())
            yield slice(low, low + len(part)), logits[torch.arange(len(part)), where]
