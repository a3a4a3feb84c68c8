"""Pages of the reader's own: a template over a table, kept as a row of `book/own.yml`, which git does not see.

Deleting a row removes the page at the next `make reproduce`. Knows nothing of what a template does with the table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ..errors import CrystalError, known
from ..files import root
from ..tables.sheets import stem
from ..texts import HOSTILE
from .own_rows import OWN
from .pages import Page, page_list, parameters, parse, shortest, values


def page_of(template: str, data: str, assignments: Sequence[str] = ()) -> Page:
    """The page of `template` over the table `data`, with other parameters as in `["name=value"]`; nothing is written.

    Its id is the template and the table's name in lower-case letters, digits and hyphens; its title is the table's name.
    Raises: CrystalError for a template that takes no table, a table that is not there or has no name in ASCII, an unknown
    or mistyped parameter, or an id that a page of the book has.
    """
    notebooks = sorted((root() / "notebooks").glob("*.ipynb"))
    taking = [path.stem for path in notebooks if (of := parameters(path).get("data")) is not None and of.type == "str"]
    known(template, taking, "template that takes a table")
    path = Path(data).expanduser()
    if not path.is_file():
        raise CrystalError(f"there is no table {data!r}", mend=f"make page TEMPLATE={template} DATA=path/to/answers.csv")
    if HOSTILE.search(shortest(path)):
        raise CrystalError("the path of the table holds a control character", where=repr(data),
                           mend="rename the file, or its folder")
    page = Page(id=f"{template}-{slug(path)}", template=template, title=stem(path), listed=OWN)
    given = parse(page, assignments)
    if "data" in given:
        raise CrystalError("the table is named twice", where=f"data={given['data']}", mend="name it once, by DATA=")
    page = Page(id=page.id, template=template, title=page.title, params={"data": shortest(path), **given}, listed=OWN)
    values(page)
    if (other := page_list().get(page.id)) and other.listed != OWN:
        raise CrystalError(f"the book has a page {page.id!r} already", where=other.listed, mend="give the table another name")
    return page


def slug(path: Path) -> str:
    """A table's name as part of an id: Tülu answers.csv.gz -> tulu-answers. Raises: CrystalError if nothing is left of it."""
    plain = unicodedata.normalize("NFKD", stem(path)).encode("ascii", "ignore").decode().lower()
    if not (words := re.findall("[a-z0-9]+", plain)):
        raise CrystalError("the table's name has no letter or digit for a page to be called by", where=path,
                           mend="give it a name in plain letters")
    return "-".join(words)[:100].rstrip("-")  # what makes files and folders of it has its limits
