"""A causal language model made ready to be read: weights, tokens as bytes, prompts as ids.

The sampling settings of `generation_config.json` are ignored: they truncate the distribution.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..ask import sources
from ..ask.ladders import Checkpoint, check_files, weights_sha256
from ..ask.sources import refusal, template_sha256
from ..ask.tasks import Task
from ..errors import CrystalError, known
from ..files import PACKAGE, file_sha256, kept, once, root
from ..texts import reason
from .automaton import Automaton, Table, Vocabulary, arrays_of
from .checkpoints import check_causal, converted, weights_of
from .cutting import Cutter, cutter_at
from .tree import ROOT, Prompts, RaggedTree, WholeTree
from .vocabulary import Encoder, end_ids, token_pieces

_HALF = (torch.float16, torch.bfloat16)
_DTYPES = ("float32", "float64", "bfloat16", "float16")
_WINDOW = re.compile(r"(.*_)?(window|window_size|chunk_size)")  # limits of attention
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_CONTEXT = ("max_position_embeddings", "max_seq_len", "seq_length")  # as models call it
_FULL = re.compile("can't allocate memory|not enough memory|out of memory", re.I)  # RuntimeErrors


@dataclass(eq=False)  # one is itself, and may be a key
class Engine:
    model: transformers.PreTrainedModel
    cutter: Cutter
    source: str
    vocabulary: Vocabulary
    chunk: int  # tree nodes per forward, up to half as many again in a round's last one
    batch: int = 128  # prompts per tree
    computed: int = 0  # token positions forwarded so far, padding included
    weights: str = ""  # how they are quantised, on whose terms
    _tables: dict[Task, Table] = field(default_factory=dict)

    @property
    def tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        return self.cutter.whole()

    @property
    def tokenizer_revision(self) -> str:
        return self.cutter.revision

    @property
    def pieces(self) -> Sequence[object]:
        return self.vocabulary.pieces

    @property
    def device(self) -> torch.device:
        """Where ids go in and logits come out; later layers may lie on other GPUs."""
        devices = (p.device for p in self.model.parameters())
        return next((d for d in devices if d.type != "meta"), torch.device("cpu"))

    def there(self, array: np.ndarray) -> torch.Tensor:
        """The array on the device where token ids go in, or on its way there."""
        tensor, gpu = torch.from_numpy(np.ascontiguousarray(array)), self.device.type == "cuda"
        return (tensor.pin_memory() if gpu else tensor).to(self.device, non_blocking=gpu)

    def unload(self) -> None:
        """Give the weights' memory back, whoever holds the engine: two may not fit."""
        self.model = None
        _release()

    @cached_property  # a configuration takes its time to answer, and every prompt asks
    def context(self) -> int:
        """Longest sequence, in tokens, that the model was made for; 2**20 where it names none."""
        config = self.model.config.get_text_config()
        return _least([getattr(config, name, None) for name in _CONTEXT], 2**20)

    @cached_property
    def window(self) -> int:
        """Longest sequence of which every token sees all before it: the smallest of any layer's."""
        settings = self.model.config.get_text_config().to_dict().items()
        limits = [n for name, n in settings if _WINDOW.fullmatch(name)]
        longest = self.switch or self.context
        return min(longest, _least(limits, longest))

    @cached_property
    def switch(self) -> int | None:
        """Length beyond which one text changes the positions of all in its forward (longrope)."""
        config = self.model.config.get_text_config().to_dict()
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        each = [rope, *(one for one in rope.values() if isinstance(one, dict))]
        name = "original_max_position_embeddings"
        found = (x.get(name) or config.get(name) for x in each if x.get("rope_type") == "longrope")
        return next(found, None)

    @cached_property
    def ragged(self) -> bool:
        """Whether the fast tree gives this model's logits; tried when first asked."""
        longest, model = min(self.window, self.context), self.model
        if model.num_parameters() < LARGE:
            return ragged_agrees(self, longest)
        code = [file_sha256(PACKAGE / "read" / name) for name in ("tree.py", "engine.py")]
        config = model.config.to_json_string(use_diff=False)
        how = type(model).__name__, config, model.dtype, self.device.type, longest
        versions = map(version, ("torch", "transformers"))
        return once("proofs", (*how, *versions, *code), lambda: ragged_agrees(self, longest))

    @cached_property
    def _encoder(self) -> Encoder:
        tokenizer, prepare = self.cutter.tokenizer, self.cutter.prepare
        return Encoder(tokenizer, end_ids(self.model, tokenizer), self.source, prepare)

    def encode(self, text: str, form: str, reply: str = "") -> tuple[int, ...]:
        """`Encoder.encode`, and a CrystalError for a prompt that leaves no room to answer."""
        ids = self._encoder.encode(text, form, reply)
        self.room(ids)
        return ids

    def room(self, ids: Sequence[int]) -> int:
        """How many tokens of answer fit behind these ids; the last one need not be computed.

        Raises: CrystalError for no ids, more than the context holds, or one beyond the vocabulary.
        """
        if not ids:
            hint = "give at least one character: --prompt 'A digit:'"
            raise CrystalError("the prompt is empty", where=self.source, hint=hint)
        if len(ids) > self.context:
            what = f"the prompt has {len(ids)} tokens and the model's context holds {self.context}"
            hint = "shorten the prompt, or choose a model with a longer context"
            raise CrystalError(what, where=self.source, hint=hint)
        if (most := max(ids)) >= len(self.pieces):
            what = f"the prompt holds token {most}, for which the model has no place"
            hint = "leave such text out of the prompt, or take the tokenizer of this checkpoint"
            raise CrystalError(what, where=self.source, hint=hint)
        return self.context - len(ids) + 1

    def table(self, task: Task) -> Table:
        """What each token does to an answer to `task`."""
        if task not in self._tables:
            self._tables[task] = Table(self.vocabulary, Automaton(task))
        return self._tables[task]

    def tree(self, prompts: Prompts, depth: int | np.ndarray) -> RaggedTree | WholeTree:
        """The tree of answers to `prompts`, its roots computed; depth: the deepest level."""
        fits = max(np.array([len(ids) for ids in prompts]) + depth) <= self.window
        return (RaggedTree if fits and self.ragged else WholeTree)(self, prompts)

    def in_parts(self, prompts: Prompts, longest: int, work: Callable) -> list:
        """`work` on at most `batch` prompts at a time, its lists joined.

        work: prompts, and how many tokens each one's answer may take (`longest`, or what fits) ->
        list. A part that does not fit into memory is done again with half the prompts and half the
        nodes per forward, and the engine keeps to these.
        Raises: CrystalError as `room`, and if a prompt does not fit, node by node.
        """
        most = np.array([min(longest, self.room(ids)) for ids in prompts])
        size, done = self.batch, []
        while len(done) < len(prompts):
            part = slice(len(done), len(done) + size)
            try:
                done += work(prompts[part], most[part])
                continue
            except Exception as error:
                if not lacking(error):
                    raise
            # out of the except block: the traceback holds on to the tensors that were in the way
            size = min(size, len(prompts) - len(done))
            if size == self.chunk == 1:
                what = "not even one prompt fits into memory"
                hint = "several GPUs (--device auto), or a narrower dtype "
                hint += "in the ladder's description"
                raise CrystalError(what, where=self.source, hint=hint)
            self.batch = size = max(1, size // 2)
            self.chunk = max(1, self.chunk // 2)
            _release()
        return done

    def forward(self, ids: torch.Tensor, **kwargs) -> torch.Tensor:
        """Logits in float32 at least: a softmax in bfloat16 does not sum to 1."""
        self.computed += ids.numel()
        try:
            with torch.inference_mode():
                logits = self.model(input_ids=ids, **kwargs).logits.to(self.device)
        except Exception as error:  # code of any architecture
            if lacking(error):
                raise
            why = f"{type(error).__name__} {reason(error)[:200]}"
            what = f"the model fails on {ids.shape[-1]} tokens: {why}"
            hint = "shorten the prompt, or look at what config.json says of the context"
            raise CrystalError(what, where=self.source, hint=hint) from error
        return logits if logits.dtype == torch.float64 else logits.float()


def lacking(error: BaseException) -> bool:
    """Whether an error says that the memory was not enough."""
    plain = isinstance(error, RuntimeError) and _FULL.search(str(error))
    return bool(plain) or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _least(limits: Sequence[object], default: int) -> int:
    return min((n for n in limits if type(n) is int and n > 0), default=default)


# -- loading


def load_checkpoint(checkpoint: Checkpoint, *, dtype: str, device: str | None = None) -> Engine:
    """Load the checkpoint that a ladder's description names, with the template if that gives one.

    Raises: CrystalError as `load`, and for another template or other files than described.
    """
    check_files(checkpoint)
    how = {"revision": checkpoint.revision, "tokenizer": checkpoint.tokenizer or None}
    engine = load(checkpoint.location, **how, dtype=dtype, device=device)
    tokenizer = engine.cutter.tokenizer
    if checkpoint.template:
        tokenizer.chat_template = checkpoint.template
    if checkpoint.template_sha256 not in ("", found := template_sha256(tokenizer)):
        wanted = f"but {checkpoint.ladder}.yaml says {checkpoint.template_sha256}"
        what = f"the chat template's sha256 is {found or 'that of none'}, {wanted}"
        hint = f"crystal fetch {checkpoint.ladder} --checkpoint {checkpoint.name}"
        raise CrystalError(what, where=engine.source, hint=hint)
    return engine


def load(
    source: str | Path,
    *,
    revision: str | None = None,
    tokenizer: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
) -> Engine:
    """Load a folder or GGUF file (relative to here, else to the repository), hub id or package.

    revision: the hub's commit; the sha256 of a folder's model.safetensors, or of a GGUF file.
    tokenizer: the commit it is taken from, if another. device: None is "auto" (the weights over all
    GPUs) where there are several GPUs, else cuda if there is one.
    Raises: CrystalError if it is not there, not in safetensors, of another hash, needs code of its
    own, or if the weights are not exactly those that its configuration asks for.
    """
    transformers.utils.logging.disable_progress_bar()
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # else a bot is asked for a conversion
    known(dtype, _DTYPES, "dtype")
    note = ""
    if sources.packed(str(source)):
        source, note = converted(str(source), revision)
        revision = None
    place, at = _locate(str(source), revision), revision or "main"  # folders have no revisions
    if device is None and torch.cuda.device_count() > 1:
        device = "auto"
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    spread = "auto" if device == "auto" else None
    if not spread:
        _check_device(device)
    try:
        cutter = cutter_at(place, tokenizer or at)
        model = weights_of(place, source, revision=at, dtype=dtype, device_map=spread)
        if not spread:
            model.to(device)
        check_causal(model, source)
    except (CrystalError, MemoryError):
        raise
    except Exception as error:  # foreign files go through much code that expects sound ones
        raise refusal(error, source) from error
    engine = build(model, cutter, str(source))
    engine.weights = str(note)
    return engine


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        what = f"the device {device!r:.40} cannot be used: {reason(error)[:100]}"
        raise CrystalError(what, hint="--device cpu, or cuda where there is a GPU") from error


def build(model, tokenizer, source: str = "in memory") -> Engine:
    """An engine around a model and a tokenizer, or its `Cutter`, that are already there."""
    cutter = tokenizer if isinstance(tokenizer, Cutter) else Cutter(tokenizer, "")
    tokenizer, width = cutter.tokenizer, model.get_output_embeddings().weight.shape[0]
    # after these ids there is no more answer: every special token, and every end the model names
    ends = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends |= {*tokenizer.all_special_ids} | end_ids(model, tokenizer)
    vocabulary = _vocabulary(cutter, ends, width)
    # a row of the vocabulary a node in float64 takes 256 MiB; 1 GiB on a GPU, which starves on less
    chunk = max(64, min(1024, 2 ** (27 if model.device.type == "cuda" else 25) // width))
    return Engine(model.eval(), cutter, source, vocabulary, chunk)


def _vocabulary(cutter: Cutter, ends: set[int], width: int) -> Vocabulary:
    def made() -> dict[str, np.ndarray]:
        return arrays_of(token_pieces(cutter.decoding(), ends, width))

    code = [file_sha256(PACKAGE / "read" / name) for name in ("vocabulary.py", "automaton.py")]
    rests_on = *cutter.key, sorted(ends), width, *code
    return Vocabulary(kept("vocabularies", rests_on, made) if cutter.key else made())


def _locate(source: str, revision: str | None) -> str:
    """A folder that holds safetensors (and the hash asked for), or the hub id as it is."""
    places = Path(source), root() / source
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        beside = any(place.parent.is_dir() for place in places)
        if _HUB_ID.fullmatch(source) and not beside:  # a misspelt folder would ask the network
            return source
        what = "there is no such folder, and it is no hub id (owner/name)"
        raise CrystalError(what, where=source, hint="check --model")
    if not any(folder.glob("*.safetensors")):
        hint = "save them with model.save_pretrained(folder), or see `git lfs pull`"
        raise CrystalError("the folder holds no weights in safetensors", where=folder, hint=hint)
    if revision is not None and (found := weights_sha256(folder)) != revision:
        what = f"the weights' sha256 is {found}, not {revision}"
        hint = "git checkout -- the folder, or train it again: make ladder"
        raise CrystalError(what, where=folder, hint=hint)
    return str(folder)


# -- may the fast tree be used?

# Largest root mean square difference of a row of logits, in their standard deviations: rounding
# gives a fortieth of it on real checkpoints, a forgotten mask or position a hundred times.
AGREED = 1e-3
LARGE = 50_000_000  # parameters from which on a proof takes seconds, and is kept
LONGEST, DEPTH = 7, 3  # tokens of the longest prompt, and of the deepest path
# the prompt of each node and the node above, by round, nodes counted over all rounds
OWNER = np.array([0, 0, 1, 2]), np.array([0, 0, 2]), np.array([0, 2])
PARENT = np.full(4, ROOT), np.array([1, 1, ROOT]), np.array([5, 3])


def ragged_agrees(engine: Engine, longest: int) -> bool:
    """Whether both trees give the same logits; longest: tokens that a sequence may have.

    Prompts of unequal length share beginnings, nodes are siblings or hang below earlier rounds:
    attention to a neighbour or a wrong position shows, and a layer that carries anything along.
    """
    if (longest := min(LONGEST, longest - DEPTH)) < 4:
        return False
    random, texts = np.random.default_rng(0), engine.vocabulary.order[: engine.vocabulary.texts]
    first, second, *tokens = (random.choice(texts, n) for n in (longest, longest, 4, 3, 2))
    half = longest // 2
    parts = first[: half + 1], first, np.append(first[:half], second[: longest - half - 1])
    prompts, before = [tuple(part.tolist()) for part in parts], engine.computed
    try:
        with _InFloat32():
            a, b = (_grown(tree(engine, prompts), tokens) for tree in (RaggedTree, WholeTree))
            apart = (a.double() - b.double()).square().mean(-1).sqrt().max()
            return float(apart / b.double().std(-1).mean()) <= AGREED
    except Exception as error:  # code of any architecture, with arguments that it may not know
        if lacking(error):
            raise
        return False
    finally:
        engine.computed = before


def _grown(tree: RaggedTree | WholeTree, tokens: list[np.ndarray]) -> torch.Tensor:
    below = [tree.grow(*asked) for asked in zip(OWNER, PARENT, tokens, strict=True)]
    return torch.cat([tree.roots, *(logits for round_ in below for _, logits in round_)])


class _InFloat32(TorchFunctionMode):
    """Half precisions are widened wherever anything is computed from them: in bfloat16, rounding
    moves a real checkpoint's logits by .1 to .4 standard deviations.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def wide(value: object) -> object:
            plain = not isinstance(value, torch.Tensor) or value.dtype not in _HALF
            return value if plain else value.float()

        args, kwargs = tree_map(wide, (args, kwargs or {}))
        return function(*args, **kwargs)
