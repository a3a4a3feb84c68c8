"""Ladders: the checkpoints of one lineage, pinned by hash. A description in YAML in, frozen dataclasses out.

    data/ladders/<name>.yaml       ladders and experiments trained here, always pinned
    data/ladders/hub/<name>.yaml   ladders of the hub: none is run before `crystal pin` has written its commits down

Knows which rungs exist and where their weights lie; knows nothing of what they answer.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .. import texts
from ..errors import CrystalError, known
from ..files import file_sha256, mend_of, root
from ..fits import Hex, anything, count, flag, misfit, shown, text
from .grids import GRIDS
from .sources import GGUF, packaged
from .tasks import TASKS

STAGES = ("base", "sft", "dpo", "rlvr")
BRANCH_STAGES = (*STAGES, "again", "diverse")  # back to pretraining; RL for diverse answers
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a parameter
KINDS = {"ladder": "a ladder", "branches": "an experiment", "checkpoint": "a single checkpoint"}
HUB = "hub"  # the folder of ladders whose weights lie on the hub
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One checkpoint. The rung named exactly like its stage is that stage's end; others are on the way to it."""

    ladder: str  # the ladder it belongs to; not written in the yaml's rows
    name: str
    stage: str
    step: int  # optimiser steps since its stage began; 1 where nobody says how many
    source: str  # folder or GGUF file relative to `root()`, hub id, or `pypi:NAME==VERSION`
    revision: str  # sha256 of model.safetensors or of the GGUF file (64 hex), or the hub's commit
    # ^ (40 hex); "": not yet pinned
    grid: str = "full"  # what it is asked: a name in crystal.ask.grids.GRIDS
    parent: str = ""  # branches only: the ladder it grew from
    run: str = ""  # branches only: what was done to it
    tokenizer: str = ""  # hub only: commit of `source` the tokenizer is taken from, where it is not the weights'
    template_sha256: str = ""  # hub only: of the chat template at that commit, "" where it has none
    template: str = dataclasses.field(default="", repr=False)  # the chat template of a base that has none
    branch: str = dataclasses.field(default="main", repr=False)  # hub only: what is pinned. Not in repr, which makes pages stale:
    licence: str = dataclasses.field(default="", repr=False)
    gated: bool = dataclasses.field(default=False, repr=False)
    parameters: int = dataclasses.field(default=0, repr=False)  # 0: not known
    scheme: str = dataclasses.field(default="", repr=False)  # of quantised weights, such as Q4_K_M
    files: dict[str, str] = dataclasses.field(default_factory=dict, repr=False, hash=False)
    # ^ local only: what lies beside the weights -> its sha256

    @property
    def local(self) -> bool:
        return len(self.revision) == 64 and not packaged(self.source)

    @property
    def native_form(self) -> str:
        """The form this rung was made for: raw text for a base, the chat template once tuned."""
        return "completion" if self.stage == "base" else "chat"

    @property
    def location(self) -> Path | str:
        """What loads it: an absolute folder or file, the hub id, or the package."""
        return root() / self.source if self.local else self.source

    @property
    def weights(self) -> Path:
        """Of a local rung, the file whose sha256 is its revision."""
        return root() / self.source / ("" if self.source.endswith(GGUF) else WEIGHTS)

    def gigabytes(self, dtype: str) -> float:
        """Memory its weights take at that precision, in 10^9 bytes; 0 where the number of parameters is not known."""
        return self.parameters * DTYPES[dtype] / 1e9


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A lineage, from pretrained to its last stage."""

    name: str
    title: str  # as shown in figures
    dtype: str  # the precision its read-outs are computed in
    rungs: tuple[Rung, ...]
    seed: str | None = None  # model organisms only: the demonstrator's temperament
    demonstrated: tuple[str, ...] = ()  # model organisms only: tasks with random choices in the SFT data
    drawn: bool = False  # whether its draws are shipped: `crystal.keep.drawn` says which
    kind: str = "ladder"  # "branches": of one experiment, grown from the rungs of several ladders;
    # ^ "checkpoint": what others trained, without the stages before or after

    def rung(self, name: str) -> Rung:
        """Raises: CrystalError, with the rungs there are, for an unknown name."""
        known(name, [rung.name for rung in self.rungs], f"rung of {self.name}")
        return next(rung for rung in self.rungs if rung.name == name)

    def __str__(self) -> str:
        """How it stands, in a line."""
        pinned, most = sum(bool(rung.revision) for rung in self.rungs), max(rung.gigabytes(self.dtype) for rung in self.rungs)
        gated = [rung.name for rung in self.rungs if rung.gated]
        return (f"{self.name}: {pinned} of {len(self.rungs)} rungs pinned, {self.dtype}"
                + (f", weights of {most:.3g} GB at most" if most else "") + (f", gated: {', '.join(gated)}" if gated else ""))

    @property
    def ends(self) -> tuple[Rung, ...]:
        """The last rung of each stage: base, sft, dpo, rlvr."""
        return tuple(self.rung(stage) for stage in STAGES)


def ladder_names() -> list[str]:
    """Names of all ladders and branches trained here, sorted: all of them pinned."""
    return sorted(path.stem for path in (root() / "data" / "ladders").glob("*.yaml"))


def hub_names() -> list[str]:
    """Names of the hub's ladders that are described here, pinned or not, sorted."""
    return sorted(path.stem for path in (root() / "data" / "ladders" / HUB).glob("*.yaml"))


def description(name: str) -> Path:
    """The file that describes a ladder. Raises: CrystalError for an unknown one."""
    known(name, [*ladder_names(), *hub_names()], "ladder")
    return root() / "data" / "ladders" / ("" if name in ladder_names() else HUB) / f"{name}.yaml"


def load_ladder(name: str, *, unpinned: bool = False) -> Ladder:
    """The ladder of that name, of data/ladders or data/ladders/hub. unpinned: it may lack commits.

    Raises: CrystalError for an unknown ladder, a missing, unknown or mistyped field, a revision that is not a hash,
    two rungs of one name or one checkpoint, stages out of order, a stage without its end, or a rung that is not pinned.
    """
    path = description(name)
    return _parsed(name, path, texts.read_text(path, _mend(path)), unpinned)


@lru_cache(maxsize=64)  # a page asks for one ladder hundreds of times
def _parsed(name: str, path: Path, text: str, unpinned: bool) -> Ladder:
    raw = texts.parse_yaml(text, path, _mend(path))
    raw = _fields(raw, Ladder, path, "the ladder")
    rungs = tuple(
        Rung(ladder=name, **_fields(row, Rung, path, f"rung {number}", given=("ladder",)))
        for number, row in enumerate(raw.pop("rungs"), 1)
    )
    ladder = Ladder(rungs=rungs, **raw)
    _check(ladder, path)
    for rung in () if unpinned else ladder.rungs:
        check_pinned(rung)
    return ladder


def check_pinned(rung: Rung) -> None:
    """Raises: CrystalError for a rung of the hub whose commit is not written down."""
    if not rung.revision:
        raise CrystalError(f"rung {rung.name!r} of {rung.ladder} is not pinned: a branch of {rung.source} may move",
                           where=description(rung.ladder), mend=f"crystal pin {rung.ladder}")


def _bad(what: str, path: Path) -> CrystalError:
    return CrystalError(what, where=path, mend=_mend(path))


def _mend(path: Path) -> str:
    beside = path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path
    return f"correct it, or git checkout -- {beside}"


_TYPES = {"str": text, "int": count, "bool": flag, "str | None": text, "tuple[str, ...]": [text],
          "tuple[Rung, ...]": [anything], "dict[str, str]": {text: Hex(64)}}


def _fields(raw: object, kind: type, path: Path, what: str, given: tuple[str, ...] = ()) -> dict:
    """`raw` as keyword arguments of the dataclass `kind`, less the `given` ones.

    Raises: CrystalError for what does not fit.
    """
    if not isinstance(raw, dict):
        raise _bad(f"{what} must be a mapping of fields, is {type(raw).__name__}", path)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in given}
    for name in raw.keys() - fields.keys():
        names = ", ".join(fields)
        raise _bad(f"{what} has an unknown field {name!r:.60}; the fields are {names}", path)
    for name, field in fields.items():
        if name not in raw and _needed(field):
            raise _bad(f"{what} lacks the field {name!r}", path)
        if name in raw and misfit(raw[name], _TYPES[field.type]):
            quotes = "; put it in quotes" if _TYPES[field.type] is text else ""
            is_ = f"{shown(raw[name])}{quotes}"
            raise _bad(f"{what}: {name} must be of type {field.type}, is {is_}", path)
    return {name: tuple(value) if name == "demonstrated" else value for name, value in raw.items()}


def _needed(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _check(ladder: Ladder, path: Path) -> None:
    """What a type cannot say."""
    if ladder.name != path.stem:
        raise _bad(f"the ladder calls itself {ladder.name!r}, its file {path.name!r}", path)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", ladder.name):  # it stands in paths and on pages
        raise _bad("a ladder's name is made of letters, digits, dots, hyphens and underscores", path)
    if not ladder.rungs:
        raise _bad("the ladder has no rungs", path)
    known(ladder.dtype, DTYPES, "dtype", f"correct {path}")
    known(ladder.kind, tuple(KINDS), "kind", f"correct {path}")
    for task in ladder.demonstrated:
        known(task, TASKS, "task", f"correct `demonstrated` in {path}")
    for rung in ladder.rungs:
        known(rung.stage, STAGES if ladder.kind == "ladder" else BRANCH_STAGES, "stage", f"correct rung {rung.name!r} in {path}")
        known(rung.grid, GRIDS, "grid", f"correct rung {rung.name!r} in {path}")
        if not (_HEX.fullmatch(rung.revision) or (rung.revision == "" and path.parent.name == HUB)):
            what = "is neither 64 hex digits (sha256 of the weights) nor 40 (a commit)"
            raise _bad(f"rung {rung.name!r}: revision {rung.revision!r} {what}", path)
        if rung.name in STAGES and rung.name != rung.stage:
            raise _bad(f"rung {rung.name!r} says it belongs to stage {rung.stage!r}", path)
    _refuse_twice([rung.name for rung in ladder.rungs], "name", path)
    _refuse_twice([f"{rung.source}@{rung.revision or rung.branch}" for rung in ladder.rungs], "checkpoint", path)
    if ladder.kind == "ladder":
        _check_order(ladder, path)


def _check_order(ladder: Ladder, path: Path) -> None:
    for stage in STAGES:
        if stage not in [rung.name for rung in ladder.rungs]:
            raise _bad(f"the stage {stage!r} is missing: no rung is named {stage!r}", path)
    if (order := [STAGES.index(rung.stage) for rung in ladder.rungs]) != sorted(order):
        raise _bad(f"rungs must follow the stages {', '.join(STAGES)}", path)


def _refuse_twice(values: list[str], what: str, path: Path) -> None:
    for value in values:
        if values.count(value) > 1:
            raise _bad(f"two rungs share the {what} {value!r}", path)


WEIGHTS = "model.safetensors"
_READ = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".safetensors"}  # may change numbers


def weights_sha256(folder: str | Path) -> str:
    """sha256 of `folder`/model.safetensors, 64 hex digits: the revision of a local rung."""
    return file_sha256(Path(folder) / WEIGHTS)


def config_sha256(rung: Rung) -> str:
    """sha256 of a local rung's config.json, "" for a hub rung, whose commit covers it: for the cell's key."""
    whole = rung.local and not rung.source.endswith(GGUF)  # whose own hash covers it
    return file_sha256(root() / rung.source / "config.json") if whole else ""


def pins(folder: Path) -> dict[str, str]:
    """sha256 of every file of a checkpoint, but its weights, that can change what it answers.

    Those are its configuration, tokenizer and chat template, whatever they are called: all files of
    the kinds that a loader reads. By their paths in the folder. Raises: OSError.
    """
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in _READ and path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path)
            for path in found if path != folder / WEIGHTS}


def shipped(rung: Rung) -> bool:
    """Whether its weights come with the repository: those of stage ends under data/weights do."""
    return rung.source.startswith("data/weights/") and not re.search(r"-\d+$", rung.source)


def is_here(rung: Rung) -> bool:
    """Whether its weights lie on this machine; of a hub rung, whether they may be fetched."""
    return not rung.local or rung.weights.is_file()


def check_weights(rung: Rung) -> None:
    """Do nothing if what lies in the folder of `rung` is what its ladder names.

    A hub commit is the hub's to check.
    Raises: CrystalError with both hashes, or for missing weights, or for a rung of the hub that is
    not pinned.
    """
    check_pinned(rung)
    if not rung.local:
        return
    path = rung.weights
    if not is_here(rung):
        what = f"the weights of rung {rung.name!r} of {rung.ladder} are missing"
        raise CrystalError(what, where=path, mend=_bring_back(rung))
    try:
        found = file_sha256(path)
    except OSError as error:
        what = f"the weights of rung {rung.name!r} cannot be read: {error.strerror or error}"
        raise CrystalError(what, where=path, mend=mend_of(error, path)) from error
    if found != rung.revision:
        what = f"have sha256 {found}, but {rung.ladder}.yaml says {rung.revision}"
        raise CrystalError(f"the weights of rung {rung.name!r} {what}", where=path,
                           mend=_bring_back(rung))
    check_files(rung)


def check_files(rung: Rung) -> None:
    """Do nothing if the files beside the weights are those the description pins, all and no others.

    Where it pins none (weights that are not shipped), only what was read before can tell: see
    `crystal.keep.makings`.
    Raises: CrystalError naming a file and both hashes.
    """
    if not rung.local or not rung.files:
        return
    folder = root() / rung.source
    try:
        found = pins(folder)
    except OSError as error:
        what = f"the files of rung {rung.name!r} cannot be read: {error.strerror or error}"
        raise CrystalError(what, where=folder, mend=mend_of(error, folder)) from error
    for name in sorted(found.keys() | rung.files.keys()):
        said = rung.files.get(name)
        if found.get(name) != said:
            what = f"{name} of rung {rung.name!r} " + (
                f"is missing; {rung.ladder}.yaml says sha256 {said}"
                if name not in found
                else f"has sha256 {found[name]}, but {rung.ladder}.yaml "
                + (f"says {said}" if said else "names no such file, and it may change what is read")
            )
            away = "" if said else f"mv {folder / name} elsewhere, or "
            raise CrystalError(what, where=folder / name, mend=away + _bring_back(rung))


def _bring_back(rung: Rung) -> str:
    again = f"train it again: make ladder LADDER={rung.ladder}"
    if shipped(rung):
        return f"git checkout -- {rung.source}, or {again}"
    ship = "" if rung.parent else f", then make ship LADDER={rung.ladder}"
    return f"its weights are not shipped, {again}{ship}"
