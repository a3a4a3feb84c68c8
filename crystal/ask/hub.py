"""Checkpoints that somebody else keeps: their tokenizers, and, where one cannot be had, why in a sentence.

Asks through `huggingface_hub` and `transformers`, which honour HF_HUB_OFFLINE, HF_HUB_CACHE and the stored token.
Never runs a repository's own code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..errors import CrystalError
from .cuts import faithful

UNREACHABLE = (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError, ConnectionError)


def tokenizer_at(place: str, revision: str) -> tuple[PreTrainedTokenizerBase, str]:
    """The tokenizer of a folder or hub id, and its own revision: sha256 over tokenizer.json and chat template, 64 hex digits.

    Raises: CrystalError without tokenizer.json, or where transformers does not cut as it says; else whatever
    transformers does; see `refusal`.
    """
    if Path(place).is_dir() and not (Path(place) / "tokenizer.json").is_file():
        raise CrystalError("the tokenizer has no tokenizer.json, which says how it cuts text", where=place,
                           mend="save it as one: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)")
    file = Path(cached_file(place, "tokenizer.json", revision=revision))
    tokenizer = faithful(place, revision, file)
    return tokenizer, hashlib.sha256(file.read_bytes() + str(tokenizer.chat_template).encode()).hexdigest()


def template_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the chat template, 64 hex digits; "" where there is none."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest() if tokenizer.chat_template else ""


def refusal(error: Exception, source: object) -> CrystalError:
    """The sentence for a checkpoint that could not be fetched or loaded. transformers wraps the hub's errors: causes count."""
    if isinstance(error, CrystalError):  # a sentence already
        return error
    causes = list(_causes(error))
    said = " ".join(str(cause) for cause in causes)

    def any_is(*kinds: type) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if any_is(GatedRepoError):
        return CrystalError("the repository is gated: its licence must be accepted on its page, and a token show who asks",
                            where=source, mend="hf auth login, with an account that was given access")
    if "trust_remote_code" in said:
        return needs_code(source)
    if "cannot be loaded with `safetensors`" in said:
        return unsafe(source)
    if any_is(RevisionNotFoundError):
        return CrystalError("the repository has no such revision", where=source, mend="check branch or revision")
    if any_is(RepositoryNotFoundError, HFValidationError):
        return CrystalError("the hub has no such repository, or it is private", where=source,
                            mend="check its name, or hf auth login")
    if any_is(*UNREACHABLE):
        what = "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"
        return CrystalError(f"{what}, and the cache does not hold it", where=source,
                            mend="fetch it where there is a network: hf download REPOSITORY --revision COMMIT")
    first = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    return CrystalError(f"cannot load a causal language model: {first}", where=source,
                        mend="check the folder or hub id, the revision, and the network")


def needs_code(source: object) -> CrystalError:
    """The sentence for a checkpoint that brings code of its own."""
    return CrystalError("the checkpoint needs code of its own, and none but transformers' is run here", where=source,
                        mend="choose one whose architecture transformers knows")


def unsafe(source: object) -> CrystalError:
    """The sentence for a checkpoint whose weights are pickles."""
    return CrystalError("it holds no weights in safetensors, and no other format is read", where=source,
                        mend="choose a checkpoint that does, or ask its owner")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
