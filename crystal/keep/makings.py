"""With which config.json and tokenizer the stored cells of a checkpoint were read.

They are part of a cell's key: read with others, the same weights would give cells of two kinds side
by side, each of them sound by itself. This protects weights whose other files no description pins.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..ask.ladders import Rung
from ..errors import CrystalError
from . import drawn, manifest, store

Makings = Mapping[tuple[str, str], frozenset[tuple[str, str]]]
NAMES = ("model", "revision", "config_sha256", "tokenizer_revision")


def makings(ladder: str) -> Makings:
    """(model, revision) -> the (config_sha256, tokenizer_revision) of its stored cells.

    Draws from a server are left out: they know of neither.
    """
    read = store.read(ladder, columns=NAMES).group_by(list(NAMES)).aggregate([]).to_pylist()
    found: dict[tuple[str, str], set] = {}
    for row in (*read, *drawn.makings(ladder)):
        model, revision, *made = (row[name] for name in NAMES)
        if any(made):
            found.setdefault((model, revision), set()).add(tuple(made))
    return {checkpoint: frozenset(made) for checkpoint, made in found.items()}


def check(known: Makings, rung: Rung, now: tuple[str, str]) -> None:
    """Do nothing unless cells of the rung are stored, none of them read with what is here now.

    now: config_sha256, tokenizer_revision. Raises: CrystalError naming both hashes.
    """
    held = known.get((rung.source, rung.revision), frozenset())
    if not held or now in held:
        return
    parts = zip(
        ("config.json has", "tokenizer and chat template have"), now, min(held), strict=True
    )
    what, new, old = next((what, new, old) for what, new, old in parts if new != old)
    logs = " ".join(f"data/{kind}/{rung.ladder}" for kind in (manifest.SAMPLES, manifest.DRAWS))
    raise CrystalError(
        f"rung {rung.name!r}: {what} sha256 {new}, but its stored cells were read with {old}",
        where=rung.source,
        mend="put back the files that they were read with (git checkout, or train "
        f"it again), or rm -r {logs} and {manifest.fill(rung.ladder)}",
    )
