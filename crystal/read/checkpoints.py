"""Weights that are the checkpoint's, all of them and no others; and GGUF files, dequantised once.

transformers fills what a file lacks with random numbers and drops what it does not know: neither is
read. A GGUF file becomes a folder in hub layout in the cache: what is read is the distribution of
the *quantised* weights, computed in float32.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from .. import texts
from ..ask import sources
from ..ask.ladders import WEIGHTS, pins, weights_sha256
from ..errors import CrystalError
from ..files import cache, explained, text

FACTOR = 100  # by which an embedding may be larger than all that is stored: some are factorised
Stored = tuple[str, str, Sequence[int]]  # of a weight: name, kind (F32, I8), shape
_REALS = ("F64", "F32", "F16", "BF16")
_LISTED = {
    "missing_keys": ("lack", ""),
    "unexpected_keys": ("hold", ", which the configuration does not know"),
    "mismatched_keys": ("hold", " in another shape than the configuration's"),
}
_SAVE = "save the model again with model.save_pretrained(folder)"


def weights_of(
    place: str, source: object, *, revision: str, dtype: str, device_map: str | None
) -> PreTrainedModel:
    """The model of a folder or hub id, with exactly the weights of its files.

    Raises: CrystalError for weights that are missing, surplus, of other shapes or kinds; for an
    adapter; else what transformers raises.
    """
    folder = Path(place)
    if (folder / "adapter_config.json").is_file():
        hint = "merge it first: peft's merge_and_unload(), then save_pretrained()"
        what = "the folder holds an adapter, not a whole model"
        raise CrystalError(what, where=source, hint=hint)
    stored = [*_stored(folder)]
    _check_size(folder, stored, source)
    with _quiet():
        model, info = AutoModelForCausalLM.from_pretrained(
            place,
            revision=revision,
            trust_remote_code=False,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            device_map=device_map,
        )
    _check_loaded(info, source)
    if not folder.is_dir():  # the hub's: its files lie where its configuration does
        stored = _stored(Path(cached_file(place, "config.json", revision=revision)).parent)
    _check_stored(model, stored, source)
    return model


def _files(folder: Path) -> list[Path]:
    """The files that transformers reads: one, or those of an index, and nothing beside."""
    one, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
    if one.is_file() or not index.is_file():
        return [one] if one.is_file() else sorted(folder.glob("*.safetensors"))
    told = texts.load_file(index, "fetch it again", {"weight_map": {text: text}}, "the index")
    return sorted({folder / name for name in told["weight_map"].values()})


def _stored(folder: Path) -> Iterator[Stored]:
    """All weights in the files of a folder. Raises: CrystalError for a file that is not whole."""
    for file in _files(folder):
        with explained("the weights cannot be read", file), open(file, "rb") as opened:
            pointer = opened.read(40).startswith(b"version https://git-lfs")
        try:
            with safe_open(file, "pt") as weights:
                for name in sorted(weights.keys()):
                    part = weights.get_slice(name)
                    yield name, part.get_dtype(), part.get_shape()
        except Exception as error:  # safetensors has a kind of its own, and others
            what = f"the file of weights is damaged: {texts.reason(error)[:160]}"
            hint = "fetch or copy it again"
            if pointer:
                what = "the file is a pointer of Git LFS, not the weights"
                hint = "git lfs pull, in that folder"
            raise CrystalError(what, where=file, hint=hint) from error


def _check_size(folder: Path, stored: Sequence[Stored], source: object) -> None:
    """Raises: CrystalError for a configuration that asks for more than the files can hold."""
    numbers, told = sum(math.prod(shape) for *_, shape in stored), folder / "config.json"
    try:
        config = json.loads(told.read_bytes())
        parts = [one for one in (config, config.get("text_config")) if isinstance(one, dict)]
    except (OSError, ValueError, RecursionError, AttributeError):
        return  # transformers says what is wrong
    if any("quantization_config" in part for part in parts):
        return
    for part in parts:
        layers = _most(part, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
        width = _most(part, "hidden_size", "n_embd", "d_model")
        vocabulary = _most(part, "vocab_size")
        if layers > len(stored) or vocabulary * width > FACTOR * numbers:
            what = f"the configuration asks for {layers} layers, {vocabulary} tokens and a width "
            what += f"of {width}; the files hold {len(stored)} weights of {numbers} numbers"
            raise CrystalError(what, where=source, hint=f"correct {told}, or fetch it again")


def _most(config: Mapping[str, Any], *names: str) -> int:
    found = [config.get(name) for name in names]
    return max((n for n in found if type(n) is int), default=0)


@contextmanager
def _quiet() -> Iterator[None]:
    """No report of transformers on stderr: what is wrong is said in one sentence."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_loaded(info: Mapping[str, Any], source: object) -> None:
    """Raises: CrystalError unless the files hold exactly the weights that the model has."""
    for kind, (verb, of) in _LISTED.items():
        found = info.get(kind, ())
        if names := sorted(name if isinstance(name, str) else name[0] for name in found):
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            what = f"the weights are not this checkpoint's: they {verb} {', '.join(names[:2])}"
            hint = f"{_SAVE}, or fetch it again"
            raise CrystalError(f"{what}{more}{of}", where=source, hint=hint)
    if errors := info.get("error_msgs"):
        what = f"the weights cannot be loaded: {str(errors[0])[:200]}"
        raise CrystalError(what, where=source, hint=_SAVE)


def _check_stored(model: PreTrainedModel, stored: Iterable[Stored], source: object) -> None:
    """Raises: CrystalError for weights that would be taken at face value: quantised by a scheme
    that transformers passed over, or stored as integers or in eight bits without one.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        return
    if scheme := getattr(model.config, "quantization_config", None):
        method = scheme.get("quant_method") if isinstance(scheme, dict) else scheme.quant_method
        by = f"{str(method)[:40]!r}, which transformers does not know"
        hint = "choose a checkpoint that is not, or one that it knows"
        raise CrystalError(f"the weights are quantised by {by}", where=source, hint=hint)
    # what is stored may be called otherwise, or be a part of a weight: so all but known buffers
    buffers = (name for name, one in model.named_buffers() if not one.is_floating_point())
    passed = {name.rpartition(".")[2] for name in buffers}
    ignored = [
        pattern
        for one in (model, model.base_model)
        for pattern in getattr(one, "_keys_to_ignore_on_load_unexpected", None) or ()
    ]
    wanted = {name for name, one in model.state_dict().items() if one.is_floating_point()}
    wanted |= {name.removeprefix(f"{model.base_model_prefix}.") for name in wanted}
    for name, kind, _ in stored:
        buffer = name.rpartition(".")[2] in passed or any(re.search(one, name) for one in ignored)
        if kind not in _REALS and (name in wanted or not buffer):
            what = f"the weights {name} are stored as {kind}, and nothing says what for"
            hint = "save the model in float32, float16 or bfloat16"
            raise CrystalError(what, where=source, hint=hint)


def check_causal(model: PreTrainedModel, source: object) -> None:
    """Raises: CrystalError if a later token changes what is said, or logits are no numbers."""
    device = next(iter(model.parameters())).device
    first = min(7, model.get_input_embeddings().weight.shape[0] - 1)
    ids = torch.tensor([[first, 0, first], [first, 0, 1]], device=device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[:, 1].double()
    if not torch.isfinite(logits).all():
        hint = "fetch the weights again, or a wider --dtype"
        raise CrystalError("the logits are not numbers", where=source, hint=hint)
    if (logits[0] - logits[1]).abs().max() > 1e-2 * (1 + logits[0].abs().max()):
        what = "the model is not causal: later tokens change what it says before them"
        hint = "choose a decoder, or set is_decoder in its configuration"
        raise CrystalError(what, where=source, hint=hint)


# -- GGUF

NOTE = "converted.json"
VERSION = 1  # raise it whenever a conversion can come out differently
# Keys of an architecture that transformers leaves aside, and what it must have set instead.
_ASIDE = {
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "vocab_size": "vocab_size",
}
# What stands before GPT-2's pattern, by the name that a file gives.
_BEFORE = {"default": [], "gpt-2": [], "smollm": [pre_tokenizers.Digits(individual_digits=True)]}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What is known of a converted checkpoint, and kept in its folder as JSON."""

    sha256: str  # of the GGUF file
    scheme: str  # how its weights are quantised, such as "Q4_K_M"
    name: str  # as the file calls the model
    licence: str  # as the file says; "" where it does not
    transformers: str  # version that dequantised it
    files: dict[str, str]  # what lies beside the weights -> its sha256
    weights: str  # sha256 of model.safetensors

    def __str__(self) -> str:
        what = f"{self.name or 'the checkpoint'}: quantised weights ({self.scheme}), computed in "
        return f"{what}float32; terms: {self.licence or 'not stated in the file'}"


def converted(source: str, revision: str | None = None) -> tuple[Path, Converted]:
    """The folder of a source that is `sources.packed`, made if it is not there yet.

    revision: the sha256 that the GGUF file must have.
    Raises: CrystalError for a file that cannot be had or read, or that states what transformers
    leaves out.
    """
    file, sha256 = sources.fetch(source, revision)
    made_by = f"{VERSION}-transformers-{transformers.__version__}"
    folder = cache() / "checkpoints" / f"{sha256[:16]}-{made_by}"
    if not (folder / NOTE).is_file():
        _convert(file, sha256, folder)
    hint = f"rm -r {folder}: the next command makes it again"
    try:
        note = Converted(**texts.load_file(folder / NOTE, hint))
        files = pins(folder)
        del files[NOTE]
        if note.weights == weights_sha256(folder) and note.files == files:
            return folder, note
    except (TypeError, OSError):
        pass
    raise CrystalError("the converted checkpoint is damaged", where=folder, hint=hint)


def _convert(file: Path, sha256: str, folder: Path) -> None:
    print(f"converting {file.name} to safetensors (once)", file=sys.stderr, flush=True)
    with sources.arriving(folder, "the checkpoint cannot be converted") as whole:
        meta = _write(file, whole)
        made = {"transformers": transformers.__version__, "weights": weights_sha256(whole)}
        note = Converted(**meta, **made, sha256=sha256, files=pins(whole))
        (whole / NOTE).write_text(json.dumps(asdict(note), indent=1), encoding="utf-8")


def _write(file: Path, folder: Path) -> dict[str, str]:
    """Dequantise a file into a folder in hub layout; what the file says of itself."""
    from gguf import GGUFReader, LlamaFileType

    what = "it is no sound GGUF file"
    try:
        reader = GGUFReader(file)
        meta = {key: field.contents() for key, field in reader.fields.items()}
        meta = {key: value for key, value in meta.items() if not isinstance(value, list)}
        numbers = sum(int(tensor.n_elements) for tensor in reader.tensors)
        what = "transformers cannot read it"
        how = {"gguf_file": file.name, "dtype": torch.float32, "output_loading_info": True}
        model, info = AutoModelForCausalLM.from_pretrained(file.parent, **how)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # foreign bytes go through much code that expects sound ones
        raise _refused(f"{what}: {texts.reason(error)[:200]}", file) from error
    _check_loaded(info, file)
    _set_pre_tokenizer(tokenizer, meta, file)
    _check_whole(model, meta, numbers, file)
    model.hf_quantizer, model.is_quantized = None, False  # else it is saved as what it was before
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    name, licence = (str(meta.get(f"general.{key}", "")) for key in ("name", "license"))
    schemes = {kind.value: kind.name.removeprefix("MOSTLY_") for kind in LlamaFileType}
    scheme = schemes.get(meta.get("general.file_type"), "of an unstated scheme")
    return {"scheme": scheme, "name": name, "licence": licence}


def _refused(what: str, file: Path) -> CrystalError:
    hint = "choose a checkpoint in hub layout, or another GGUF file"
    return CrystalError(what, where=file, hint=hint)


def _set_pre_tokenizer(tokenizer: Any, meta: dict[str, Any], file: Path) -> None:
    """Set what the file names; transformers ignores the name."""
    if meta.get("tokenizer.ggml.model") == "llama":  # SentencePiece, which needs none
        return
    name = meta.get("tokenizer.ggml.pre", "")
    if name not in _BEFORE:
        what = f"how its tokenizer cuts a text ({str(name)[:40]!r}) is not known here"
        raise _refused(what, file)
    last = pre_tokenizers.ByteLevel(add_prefix_space=False)
    parts = pre_tokenizers.Sequence([*_BEFORE[name], last]) if _BEFORE[name] else last
    tokenizer.backend_tokenizer.pre_tokenizer = parts


def _check_whole(model: Any, meta: dict[str, Any], numbers: int, file: Path) -> None:
    """Refuse a file of whose numbers or keys transformers would use only a part."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    used = sum(weight.numel() for weight in model.parameters())
    if numbers != used:
        raise _refused(f"its tensors hold {numbers} numbers, and the model takes {used}", file)
    architecture = meta.get("general.architecture", "")
    carried = GGUF_CONFIG_MAPPING.get(architecture, {})
    for key in (key for key in meta if key.startswith(f"{architecture}.")):
        name, value = key.split(".", 1)[1], meta[key]
        if carried.get(name) is not None or (name, value) == ("rope.scaling.type", "none"):
            continue
        if name not in _ASIDE or getattr(model.config, _ASIDE[name], None) != value:
            what = f"it states {key} = {str(value)[:60]}, which transformers leaves out"
            raise _refused(what, file)
