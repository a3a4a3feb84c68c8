"""A GGUF file as a folder in hub layout, dequantised once by transformers and kept in the cache.

What comes out is the distribution of the *quantised* weights, computed in float32.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import texts
from ..ask import sources
from ..ask.ladders import pins, weights_sha256
from ..errors import CrystalError
from ..files import cache, mend_of
from .checkpoints import check_loaded

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
# What stands before GPT-2's own pattern, by GGUF's names.
_PRE_TOKENIZERS = {
    "default": (),
    "gpt-2": (),
    "smollm": (pre_tokenizers.Digits(individual_digits=True),),
}


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What is known of a converted checkpoint. Its folder holds it as JSON."""

    sha256: str  # of the GGUF file
    scheme: str  # how its weights are quantised, such as "Q4_K_M"
    name: str  # as the file calls the model
    licence: str  # as the file says; "" where it does not
    transformers: str  # version that dequantised it
    files: dict[str, str]  # what lies beside the weights -> its sha256
    weights: str  # sha256 of model.safetensors

    def __str__(self) -> str:
        """In a line, for whoever reads its numbers."""
        return (
            f"{self.name or 'the checkpoint'}: quantised weights ({self.scheme}), computed in "
            f"float32; terms: {self.licence or 'not stated in the file'}"
        )


def converted(source: str, revision: str | None = None) -> tuple[Path, Converted]:
    """The folder of a source that `sources.packed` names, made if it is not there yet.

    revision: the sha256 that the GGUF file must have.
    Raises: CrystalError for a file that cannot be had or read, or that states what transformers
    leaves out.
    """
    file, sha256 = sources.fetch(source, revision)
    made_by = f"{VERSION}-transformers-{transformers.__version__}"
    folder = cache() / "checkpoints" / f"{sha256[:16]}-{made_by}"
    if not (folder / NOTE).is_file():
        _convert(file, sha256, folder)
    return folder, _checked(folder)


def _checked(folder: Path) -> Converted:
    """The note of a folder whose files are those that were written."""
    mend = f"rm -r {folder}: the next command makes it again"
    try:
        note = Converted(**texts.load_json(folder / NOTE, mend))
        whole = note.weights == weights_sha256(folder) and note.files == _beside(folder)
    except (TypeError, OSError) as error:
        raise CrystalError(
            "the converted checkpoint is damaged", where=folder, mend=mend
        ) from error
    if not whole:
        raise CrystalError("the converted checkpoint is damaged", where=folder, mend=mend)
    return note


def _beside(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in pins(folder).items() if name != NOTE}


def _convert(file: Path, sha256: str, folder: Path) -> None:
    print(f"converting {file.name} to safetensors (once)", file=sys.stderr, flush=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as aside:
            whole = Path(aside) / "whole"
            told = _write(file, whole)
            note = Converted(
                sha256=sha256,
                transformers=transformers.__version__,
                **told,
                files=_beside(whole),
                weights=weights_sha256(whole),
            )
            (whole / NOTE).write_text(json.dumps(asdict(note), indent=1), encoding="utf-8")
            if not folder.exists():  # another process may have made it meanwhile
                os.replace(whole, folder)
    except OSError as error:
        raise CrystalError(
            f"the checkpoint cannot be converted: {error.strerror or error}",
            where=folder,
            mend=mend_of(error, folder),
        ) from error


def _write(file: Path, folder: Path) -> dict[str, str]:
    """Dequantise a file into a folder in hub layout; what the file says of itself."""
    told, tensors = _told(file)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # foreign bytes go through much code that expects sound ones
        first = (str(error).strip().split("\n") or [""])[0][:200]
        raise _refused(
            f"transformers cannot read it: {first or type(error).__name__}", file
        ) from error
    check_loaded(info, file)
    _cut_as_told(tokenizer, told, file)
    _check_whole(model, told, tensors, file)
    model.hf_quantizer, model.is_quantized = None, False  # else it is saved as what it was before
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "scheme": _scheme(told),
        "name": str(told.get("general.name", "")),
        "licence": str(told.get("general.license", "")),
    }


def _cut_as_told(tokenizer: Any, told: dict[str, Any], file: Path) -> None:
    """Give the tokenizer the pre-tokenizer that the file names; transformers ignores the name.

    Raises: CrystalError for one of which we do not know what it means.
    """
    if told.get("tokenizer.ggml.model") == "llama":  # SentencePiece, which needs none
        return
    name = told.get("tokenizer.ggml.pre", "")
    if name not in _PRE_TOKENIZERS:
        raise _refused(
            f"how its tokenizer cuts a text ({str(name)[:40]!r}) is not known here", file
        )
    parts = [*_PRE_TOKENIZERS[name], pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence(parts) if len(parts) > 1 else parts[0]
    )


def _refused(what: str, file: Path) -> CrystalError:
    return CrystalError(
        what, where=file, mend="choose a checkpoint in hub layout, or another GGUF file"
    )


def _told(file: Path) -> tuple[dict[str, Any], int]:
    """The metadata of a GGUF file, lists left out, and how many numbers its tensors hold."""
    try:
        from gguf import GGUFReader

        reader = GGUFReader(file)
        told = {
            key: value
            for key, field in reader.fields.items()
            if not isinstance(value := field.contents(), list)
        }
        return told, sum(int(tensor.n_elements) for tensor in reader.tensors)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise _refused(f"it is no sound GGUF file: {str(error)[:200]}", file) from error


def _check_whole(model: Any, told: dict[str, Any], tensors: int, file: Path) -> None:
    """Refuse a file of which transformers would use only a part."""
    used = sum(weight.numel() for weight in model.parameters())
    if tensors != used:
        raise _refused(f"its tensors hold {tensors} numbers, and the model takes {used}", file)
    for key in _left_out(told):
        name = key.split(".", 1)[1]
        if name == "rope.scaling.type" and told[key] == "none":
            continue
        if name not in _ASIDE or getattr(model.config, _ASIDE[name], None) != told[key]:
            raise _refused(
                f"it states {key} = {str(told[key])[:60]}, which transformers leaves out", file
            )


def _left_out(told: dict[str, Any]) -> list[str]:
    """Keys of the architecture that transformers' loader does not carry over."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    architecture = told.get("general.architecture", "")
    known = GGUF_CONFIG_MAPPING.get(architecture, {})
    return [
        key
        for key in told
        if key.startswith(f"{architecture}.") and known.get(key.split(".", 1)[1]) is None
    ]


def _scheme(told: dict[str, Any]) -> str:
    from gguf import LlamaFileType

    try:
        return LlamaFileType(told["general.file_type"]).name.removeprefix("MOSTLY_")
    except (KeyError, ValueError):
        return "of an unstated scheme"
