"""A causal language model in hub layout, made ready to be read: its weights, its tokens as bytes, its prompts as ids.

Never looks at `generation_config.json`'s sampling settings: they truncate the distribution we measure.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from ..ask.hub import refusal, template_sha256, tokenizer_at
from ..ask.ladders import Rung, check_files, weights_sha256
from ..ask.prompts import CHAT, FORMS, joined
from ..ask.tasks import Task
from ..errors import CrystalError, known
from ..files import root
from .automaton import END, VOID, Automaton, Table, Vocabulary
from .memory import release
from .tree import RaggedTree, WholeTree

# Architectures whose attention is one softmax over keys, through the registered function; each is compared with
# whole-sequence forwards in tests/test_readout.py. Any other is read through WholeTree.
RAGGED = frozenset(("llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2", "olmo3", "gpt2", "gpt_neox", "gemma", "gemma2"))
_DTYPES = ("float32", "float64", "bfloat16", "float16")
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
    pieces: list[object]
    chunk: int
    ragged: bool
    batch: int = 128
    computed: int = 0
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
        """Token ids of a prompt: raw text as the tokenizer begins a text, or a user's message in the chat template.

        A template that writes the beginning-of-sequence token and a tokenizer that adds it give one, not two.
        Raises: CrystalError for an unknown form, a tokenizer without a template, a prompt that leaves no room to answer.
        """
        known(form, FORMS, "form")
        ids = self._chat(text, reply) if form == CHAT else self.tokenizer(joined(text, reply))["input_ids"]
        while len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id:
            ids = ids[1:]
        self.room(ids)
        return tuple(ids)

    def _chat(self, text: str, reply: str = "") -> list[int]:
        if not self.tokenizer.chat_template:
            raise CrystalError("the tokenizer has no chat template", where=self.source,
                               mend="ask in completion form: --form completion")
        message = [{"role": "user", "content": text}]
        rendered = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(rendered + reply, add_special_tokens=False)["input_ids"]

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
        window = getattr(self.model.config.get_text_config(), "sliding_window", None) or self.context
        fits = max(np.array([len(ids) for ids in prompts]) + depth) <= window
        return (RaggedTree if self.ragged and fits else WholeTree)(self, prompts)

    def forward(self, ids: torch.Tensor, **kwargs) -> torch.Tensor:
        """Logits in float32 at least: a softmax in bfloat16 does not sum to 1."""
        self.computed += ids.numel()
        with torch.inference_mode():
            logits = self.model(input_ids=ids, **kwargs).logits.to(self.device)
        return logits if logits.dtype == torch.float64 else logits.float()


def load_rung(rung: Rung, *, dtype: str, device: str | None = None) -> Engine:
    """Load the checkpoint of a ladder's rung: exactly the one its description names.

    Raises: CrystalError as `load` does, or for another chat template or other files than the
    description's.
    """
    check_files(rung)
    engine = load(rung.location, revision=rung.revision, tokenizer=rung.tokenizer or None, dtype=dtype, device=device)
    if rung.template_sha256 not in ("", found := template_sha256(engine.tokenizer)):
        what = f"the chat template's sha256 is {found or 'that of none'}, but {rung.ladder}.yaml says {rung.template_sha256}"
        raise CrystalError(what, where=engine.source, mend=f"crystal pin {rung.ladder} --rung {rung.name}")
    return engine


def load(
    source: str | Path, *, revision: str | None = None, tokenizer: str | None = None, dtype: str = "float32",
    device: str | None = None,
) -> Engine:
    """Load a checkpoint from a folder (relative ones: here, else below the repository root) or by hub id.

    revision: the hub's commit; for a folder, the sha256 its model.safetensors must have. tokenizer: the commit it is taken
    from, if another. device: "auto" spreads the weights over all GPUs, as does None where there are several; else None is cuda
    if there is one.
    Raises: CrystalError if it is not there, not in safetensors, of another hash, or needs code of its own.
    """
    transformers.utils.logging.disable_progress_bar()
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # else a bot is asked to convert what has none, and its proposal loaded
    known(dtype, _DTYPES, "dtype")
    place, at = _locate(str(source), revision), revision or "main"  # a folder has no revisions: `at` is ignored there
    spread = {"device_map": "auto"} if device == "auto" or (device is None and torch.cuda.device_count() > 1) else {}
    try:
        cutter, digest = tokenizer_at(place, tokenizer or at)
        model = AutoModelForCausalLM.from_pretrained(
            place, revision=at, trust_remote_code=False, dtype=getattr(torch, dtype), use_safetensors=True, **spread)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise refusal(error, source) from error
    if not spread:
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return build(model, cutter, source=str(source), tokenizer_revision=digest)


def build(model, tokenizer, *, source: str = "in memory", tokenizer_revision: str = "") -> Engine:
    """An engine around a model and a tokenizer that are already there."""
    width = model.get_output_embeddings().weight.shape[0]
    pieces = token_pieces(tokenizer, _end_ids(model, tokenizer), width)
    return Engine(
        model=model.eval(), tokenizer=tokenizer, source=source, tokenizer_revision=tokenizer_revision,
        pieces=pieces, vocabulary=Vocabulary(pieces), ragged=model.config.model_type in RAGGED,
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
    ends = set(tokenizer.all_special_ids) | {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    for config in (model.config, model.generation_config):
        eos = getattr(config, "eos_token_id", None)
        ends |= set(eos) if isinstance(eos, list) else {eos}
    return ends - {None}


def token_pieces(tokenizer, ends: set[int], width: int) -> list[object]:
    """The bytes of every id up to `width`, END for the ids in `ends`, VOID for ids that are no token.

    Read from the vocabulary's own strings: `decode([i])` loses leading spaces and halves of characters.
    Raises: CrystalError for a vocabulary that is neither byte-level nor SentencePiece.
    """
    kinds = set(re.findall(r'"type": ?"(\w+)"', json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"])))
    if "ByteLevel" in kinds:
        spell = _byte_level
    elif kinds & {"ByteFallback", "Metaspace"}:
        spell = _sentencepiece
    else:
        found = ", ".join(sorted(kinds)) or "none"
        raise CrystalError(f"the tokenizer is neither byte-level nor SentencePiece (decoder: {found})",
                           where=tokenizer.name_or_path, mend="choose a model with a byte-level BPE or SentencePiece tokenizer")
    pieces: list[object] = [VOID] * width
    for text, i in tokenizer.get_vocab().items():
        if i < width:
            pieces[i] = END if i in ends else text.encode() if i in tokenizer.added_tokens_decoder else spell(text)
    return pieces


def _alphabet() -> dict[str, int]:
    """The byte-level alphabet: printable bytes stand for themselves, the rest are moved to U+0100 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(moved)}


ALPHABET = _alphabet()


def _byte_level(text: str) -> bytes:
    return bytes(ALPHABET[c] for c in text)


def _sentencepiece(text: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()
