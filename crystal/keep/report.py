"""What a look through a whole log found, and how that is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import manifest


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `verify` found in a log."""

    ladder: str
    kind: str = manifest.SAMPLES
    shards: int
    cells: int
    bytes: int
    missing: int  # cells that the ladder's description asks for
    first: str = ""  # of the missing, in words
    shipped: bool  # whether all of them have to be there
    unlisted: tuple[str, ...]  # files no manifest line names, never read
    problems: tuple[str, ...]  # sentences

    @property
    def faults(self) -> int:
        """Problems, and one more where cells are missing that have to be there."""
        return len(self.problems) + bool(self.missing and self.shipped)

    def __str__(self) -> str:
        of = self.ladder + (", draws" if self.kind == manifest.DRAWS else "")
        said = (f"{of}: {self.cells} cells in {self.shards} shards ({self.bytes / 2**20:.1f} MiB), "
                f"{self.missing} missing")
        return "\n".join([said, *self._lacking(), *self._left(), *self.problems])

    def _lacking(self) -> Iterator[str]:
        if self.missing and self.shipped:
            back = manifest.fill(self.ladder, self.kind)
            yield (
                f"{self.missing} cells that the description of {self.ladder} asks for are missing, "
                f"first {self.first}. "
                f"Mend: git checkout -- data/{self.kind}/{self.ladder}, or {back}"
            )

    def _left(self) -> Iterator[str]:
        if not self.unlisted:
            return
        said = f"{len(self.unlisted)} unlisted files ({', '.join(self.unlisted)}): "
        if self.missing or self.problems:
            lost = f"git checkout -- data/{self.kind}/{self.ladder}/manifest.jsonl"
            back = lost if self.shipped else manifest.fill(self.ladder, self.kind)
            yield said + f"they may hold the missing cells, so keep them. Mend: {back}"
        else:
            yield said + "left by a write that was cut short; safe to delete"
