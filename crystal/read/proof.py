"""Whether a model's answers may be read through the ragged tree: it is tried, not looked up.

A small tree is computed both ways, with the model's own weights. Prompts of unequal length share beginnings, nodes are siblings
and hang below earlier rounds, so attention to a neighbour, to another prompt or to a wrong position shows; so does a layer that
carries anything along the row. A model whose logits agree is read through RaggedTree.
"""

from __future__ import annotations

import contextlib
import hashlib
from importlib.metadata import version

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..files import PACKAGE, cache, file_sha256, write_file
from .memory import lacking
from .tree import ROOT, RaggedTree, WholeTree

# Largest root-mean-square difference of a row of logits, in units of the logits' standard deviation. Rounding gives a
# fortieth of it on real checkpoints; a forgotten mask, bias or position gives a hundred times as much.
AGREED = 1e-3
LARGE = 50_000_000  # parameters from which on a proof takes a while, and is kept
LONGEST, DEPTH = 7, 3  # tokens of the longest prompt, and of the deepest path
OWNER = np.array([0, 0, 1, 2]), np.array([0, 0, 2]), np.array([0, 2])  # the prompt of each node, by round
PARENT = np.full(4, ROOT), np.array([1, 1, ROOT]), np.array([5, 3])  # the node above, counted over all rounds


def ragged_agrees(engine, longest: int) -> bool:
    """Whether both ways give the same logits; longest: tokens that a sequence of the proof may have.

    Whatever the ragged way raises is a no, but for a lack of memory.
    """
    prompts, tokens = _asked(engine, min(LONGEST, longest - DEPTH))
    if not prompts:
        return False
    before = engine.computed
    try:
        with _InFloat32():
            return _difference(_ragged(engine, prompts, tokens), _whole(engine, prompts, tokens)) <= AGREED
    except Exception as error:  # code of any architecture runs here, with arguments that it may not know
        if lacking(error):
            raise
        return False
    finally:
        engine.computed = before


def proven(engine, longest: int) -> bool:
    """As `ragged_agrees`; what came out for a large model is kept, for that architecture, precision
    and code.
    """
    if engine.model.num_parameters() < LARGE:
        return ragged_agrees(engine, longest)
    mark = cache() / "proofs" / _rests_on(engine, longest)
    if not mark.is_file():
        agrees = ragged_agrees(engine, longest)
        with contextlib.suppress(OSError):  # a cache that cannot be written is no failure
            mark.parent.mkdir(parents=True, exist_ok=True)
            write_file(mark, b"yes" if agrees else b"no")
        return agrees
    return mark.read_bytes() == b"yes"


def _rests_on(engine, longest: int) -> str:
    """A digest of everything that decides how a model computes, but its weights."""
    model = engine.model
    code = [file_sha256(PACKAGE / "read" / name) for name in ("tree.py", "proof.py")]
    parts = [type(model).__name__, model.config.to_json_string(use_diff=False), model.dtype,
             engine.device.type, longest, *map(version, ("torch", "transformers")), *code]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


class _InFloat32(TorchFunctionMode):
    """Half precisions are widened wherever anything is computed from them, weights for that moment only.

    In bfloat16, rounding alone moves a real checkpoint's logits by .1 to .4 standard deviations: no test of anything.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        args, kwargs = tree_map(_wide, (args, kwargs or {}))
        return function(*args, **kwargs)


def _wide(value: object) -> object:
    half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def _asked(engine, longest: int) -> tuple[list[tuple[int, ...]], list[np.ndarray]]:
    """Prompts of texts' tokens, and the tokens of each round; none where there is no room for any."""
    if longest < 4:
        return [], []
    random = np.random.default_rng(0)
    texts = engine.vocabulary.order[: engine.vocabulary.texts]
    first, second, *tokens = (random.choice(texts, n) for n in (longest, longest, *map(len, OWNER)))
    half = longest // 2
    parts = first[: half + 1], first, np.append(first[:half], second[: longest - half - 1])
    return [tuple(part.tolist()) for part in parts], tokens


def _ragged(engine, prompts: list[tuple[int, ...]], tokens: list[np.ndarray]) -> torch.Tensor:
    tree = RaggedTree(engine, prompts)
    below = [tree.grow(*asked) for asked in zip(OWNER, PARENT, tokens, strict=True)]
    return torch.cat([tree.roots, *(logits for round_ in below for _, logits in round_)])


def _whole(engine, prompts: list[tuple[int, ...]], tokens: list[np.ndarray]) -> torch.Tensor:
    """The same in one forward: prompts and nodes as texts of their own."""
    texts: list[tuple[int, ...]] = []
    for owner, parent, token in zip(*map(np.concatenate, (OWNER, PARENT, tokens)), strict=True):
        texts.append((*(prompts[owner] if parent == ROOT else texts[parent]), int(token)))
    return WholeTree(engine, prompts + texts).roots


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest of a row, see AGREED; not a number where the logits are none."""
    apart = (a.double() - b.double()).square().mean(-1).sqrt().max()
    return float(apart / b.double().std(-1).mean())
