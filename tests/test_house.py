"""The house: light imports, locks that agree, clean notebooks, prose without typed numbers."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from crystal.ask.tasks import PHASE_TASKS
from crystal.book import pages, runs
from crystal.workers import cores

REPOSITORY = Path(__file__).parent.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
PROSE = sorted((REPOSITORY / "book").glob("*.md"))
PACKAGE = REPOSITORY / "crystal"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.name.startswith("__")
}
BELOW = ("errors", "files", "texts", "workers")
ABOVE = ("commands", "checkpoint_commands", "cli")
HEAVY = ("torch", "transformers", "trl", "datasets", "ray", "matplotlib", "seaborn")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def cells(notebook: Path, kind: str) -> list[str]:
    return [
        "".join(cell["source"])
        for cell in json.loads(notebook.read_text())["cells"]
        if cell["cell_type"] == kind
    ]


# -- rooms


def listed(init: Path) -> dict[str, str]:
    """Name -> what is said of it: the indented lines of a package's docstring, in their order."""
    return dict(
        re.findall(r"^    (\w+)  +(.+)$", ast.get_docstring(ast.parse(init.read_text())), re.M)
    )


ROOMS = tuple(listed(PACKAGE / "__init__.py"))
LISTED = {room: listed(PACKAGE / room / "__init__.py") for room in ROOMS}
TORCH = {
    f"{room}.{name}" for room in ROOMS for name, said in LISTED[room].items() if "(torch)" in said
}
LIGHT = sorted(MODULES.keys() - TORCH)


def known_to(path: Path) -> set[str]:
    """Modules of the package that a module of it imports, inside functions, too."""
    here, found = path.relative_to(PACKAGE).parts[:-1], set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            source = (
                *here[: len(here) + 1 - node.level],
                *(node.module.split(".") if node.module else []),
            )
            found |= {".".join(source), *(".".join((*source, alias.name)) for alias in node.names)}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            assert not re.search(r"\bcrystal\b", ast.unparse(node)), (
                f"{path} names its own package in full"
            )
    return found & MODULES.keys()


KNOWN = {name: known_to(path) for name, path in MODULES.items()}


def place(name: str) -> str:
    """A module's room, or the module itself where it stands beside the rooms."""
    return name.partition(".")[0]


def test_every_room_lists_its_modules():
    assert {place(name) for name in MODULES} == {*BELOW, *ROOMS, *ABOVE} and len(
        ROOMS
    ) <= 9  # what a head can hold
    for room in ROOMS:
        init = PACKAGE / room / "__init__.py"
        assert (
            len(ast.parse(init.read_text()).body) == 1
        )  # a docstring and no code: importing a module loads no neighbour
        assert "Knows no" in ast.get_docstring(ast.parse(init.read_text())).replace("\n", " ")
        assert sorted(LISTED[room]) == sorted(
            path.stem for path in init.parent.glob("*.py") if path != init
        ), room
        assert room not in LISTED[room]  # no crystal.room.room


def test_rooms_know_only_rooms_above():
    """The order of `crystal.__doc__` is the flow of data; imports inside functions count."""
    order = (*BELOW, *ROOMS, *ABOVE)
    upward = [
        f"{name} imports {other}"
        for name, others in KNOWN.items()
        for other in sorted(others)
        if order.index(place(other)) > order.index(place(name))
    ]
    assert upward == []


def test_modules_import_in_one_direction():
    """No circles anywhere; a room lists no module before one that it imports."""
    assert {
        *TopologicalSorter(KNOWN).static_order()
    } == MODULES.keys()  # CycleError names the cycle
    for room in ROOMS:
        order = [f"{room}.{module}" for module in LISTED[room]]
        early = [
            f"{name} is listed before {other}"
            for name in order
            for other in sorted(KNOWN[name] & {*order})
            if order.index(other) > order.index(name)
        ]
        assert early == []


def test_measures_can_be_tried_without_models_or_files():
    rooms = {
        place(other)
        for name, others in KNOWN.items()
        if place(name) == "measure"
        for other in others
    }
    assert rooms <= {"measure", *BELOW}


def test_the_readme_says_which_rooms_import_which():
    """Its table, a line a room: `| `room` | what happens there | rooms it imports from |`."""
    text = (PACKAGE / "README.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \|.*\|([\w, ]*)\|$", text, re.M))
    used = {
        room: {place(other) for name in KNOWN if place(name) == room for other in KNOWN[name]}
        for room in ROOMS
    }
    assert told.keys() == used.keys()
    for room, others in used.items():
        assert told[room].strip() == ", ".join(one for one in ROOMS if one in others - {room}), room
    assert all(f"`{name}`" in text for name in (*BELOW, *ABOVE))


def test_no_module_is_too_long_to_be_read():
    long = {name for name, path in MODULES.items() if len(path.read_text().splitlines()) > 400}
    assert long == set(), "more than 400 lines"


def test_lines_and_functions_are_short():
    wide, long = [], []
    for path in sorted(
        path
        for room in ("book", "crystal", "tests", "scripts")
        for path in (REPOSITORY / room).rglob("*.py")
    ):
        text = path.read_text()
        name = path.relative_to(REPOSITORY).as_posix()
        wide += [f"{name}:{i}" for i, line in enumerate(text.splitlines(), 1) if len(line) > 100]
        functions = (
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        )
        if not name.startswith("tests/"):
            long += [f"{name}:{n.name}" for n in functions if n.end_lineno - n.lineno >= 50]
    assert (wide, long) == ([], [])


# -- imports


@pytest.mark.parametrize(
    "modules",
    ["crystal", ", ".join(f"crystal.{name}" for name in LIGHT)],
    ids=["package", "light path"],
)
def test_importing_loads_nothing_heavy(modules):
    assert run(f"import {modules}, sys; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_templates_import_without_torch():
    """What `make reproduce` runs must not need what requirements/light.txt does not install."""
    paths = {path for notebook in NOTEBOOKS for path in runs.imported(notebook)}
    wanted = sorted(f"crystal.{name}" for name, path in MODULES.items() if path in paths)
    assert "crystal.keep.store" in wanted and "crystal.measure.quantities" in wanted
    assert {name.removeprefix("crystal.") for name in wanted} <= {*LIGHT}
    absent = ("torch", "transformers", "trl", "datasets", "tokenizers", "safetensors")
    gone = "\n".join(
        (  # not sys.modules[name] = None, on which scipy stumbles
            "import sys",
            "class Absent:",
            "    def find_spec(self, name, path=None, target=None):",
            f"        if name.split('.')[0] in {absent}: raise ModuleNotFoundError(name)",
            "sys.meta_path.insert(0, Absent())",
        )
    )
    run(f"{gone}\nimport {', '.join(wanted)}")


# -- environments


def pins(name: str) -> dict[str, str]:
    """Package -> version; fails on any line that is not an exact pin."""
    lines = (REPOSITORY / "requirements" / name).read_text().split()
    found = dict(line.split("==") for line in lines)
    assert len(found) == len(lines)
    return {normal(package): version for package, version in found.items()}


def normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", package)[0]).lower()


def test_locks_are_exact_and_the_full_one_holds_the_light_one():
    light, full = pins("light.txt"), pins("full.txt")
    assert light.items() <= full.items()
    assert not {"torch", "transformers", "trl"} & light.keys()
    assert not [
        name for name in full if re.match("nvidia|triton|cuda", name)
    ] and "+" not in "".join(full.values())


@pytest.mark.parametrize("name", ["light", "full"])
def test_locks_keep_what_was_asked_for(name):
    asked = [
        line.split("#")[0].strip()
        for line in (REPOSITORY / f"requirements/{name}.in").read_text().splitlines()
    ]
    locked = pins(f"{name}.txt")
    for package, equals, version in (line.partition("==") for line in asked if line):
        assert normal(package) in locked
        assert not equals or locked[normal(package)] == version


def test_conda_and_pyproject_agree_with_the_locks():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {normal(d) for d in project["dependencies"]} <= pins("light.txt").keys()
    for extra in ("full", "cluster"):
        assert {normal(d) for d in project["optional-dependencies"][extra]} <= pins(
            "full.txt"
        ).keys()
    assert (
        f"ray=={pins('full.txt')['ray']}" in project["optional-dependencies"]["cluster"]
    )  # a cluster's nodes must agree on it
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert [d["pip"] for d in conda if isinstance(d, dict)] == [
        ["-r requirements/full.txt"]
    ]  # the lock itself
    assert {d.split("=")[0] for d in conda if isinstance(d, str)} == {"python", "pip", "make"}
    binder = REPOSITORY / ".binder"
    named = (binder / "requirements.txt").read_text().removeprefix("-r ").strip()
    assert (binder / named).resolve() == REPOSITORY / "requirements/light.txt"
    python = next(d for d in conda if str(d).startswith("python=")).split("=")[1]
    assert (binder / "runtime.txt").read_text() == f"python-{python}\n"
    assert tuple(map(int, python.split("."))) >= tuple(
        map(int, project["requires-python"].removeprefix(">=").split("."))
    )


def test_every_target_says_what_it_does():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())
    told = dict(re.findall(r"^([a-z]+):.*## (.+)$", makefile, re.M))
    assert told.keys() == targets
    shown = make().stdout
    assert all(f"make {target}" in shown for target in targets)


def make(*words: str) -> subprocess.CompletedProcess:
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


# -- notebooks and page list


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(notebook):
    content = json.loads(notebook.read_text())
    assert content["metadata"].keys() <= {"kernelspec", "language_info"}
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    assert cells(notebook, "markdown")[0].startswith("# ")
    for cell in content["cells"]:
        assert cell["metadata"].keys() <= {"tags"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    pages.parameters(notebook)


def test_every_task_has_a_page_in_every_phase():
    listed = pages.page_list()
    for phase in ("liquid", "nucleation", "settling"):
        of_phase = [page for page in listed.values() if page.template == phase]
        assert [(page.id, pages.values(page)["task"]) for page in of_phase] == [
            (f"{phase}-{task}", task) for task in PHASE_TASKS
        ]
    assert len(listed) >= 46
    assert {page.template for page in listed.values()} == {notebook.stem for notebook in NOTEBOOKS}
    chapters = [
        row["file"]
        for part in pages.spine()["parts"]
        for row in pages.rows(part["chapters"])
        if "file" in row
    ]
    assert sorted(chapters) == sorted(path.stem for path in PROSE)


# -- prose

NOT_PROSE = (
    # code and quotations
    r"^(`{3,}|:{3,})\{?(literalinclude|csv-table|bibliography|tableofcontents|\w*)\}?[\s\S]*?^\1",
    r"\$\$[\s\S]*?\$\$(?: \(.*\))?",
    r"\$[^$\n]+\$",  # mathematics
    r"\{[a-z:]+\}`[^`]*`",
    r"`[^`]*`",  # roles (citations, claims, references) and code
    r"\]\([^)]*\)",
    r"<?https?://\S+",
    r"\(\w[\w-]*\)=",  # links and labels
    r"arXiv:\d{4}\.\d{5}",
)
NAMES = ("Tülu 3", "OLMo 2", "CC BY 4.0", "Python 3.11", "float32")  # names that contain a number


def typed_numbers(text: str) -> list[str]:
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.M)
    for name in NAMES:
        text = text.replace(name, " ")
    return re.findall(r"\S*\d\S*", text)


@pytest.mark.parametrize("path", [*PROSE, *NOTEBOOKS], ids=lambda path: path.name)
def test_prose_has_no_typed_numbers(path):
    text = path.read_text() if path.suffix == ".md" else "\n\n".join(cells(path, "markdown"))
    assert typed_numbers(text) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_page_tells_takes_its_numbers_from_code(notebook):
    told = []
    for code in cells(notebook, "code"):
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            if getattr(call.func, "attr", "") in ("prose", "emit", "claim"):
                spoken = [
                    *call.args,
                    *(
                        word.value
                        for word in call.keywords
                        if word.arg in ("alt", "caption", "sentence")
                    ),
                ]
                told += [part for argument in spoken for part in strings(argument)]
    assert typed_numbers("\n".join(told)) == []


def strings(node: ast.AST) -> list[str]:
    """Literal text in an expression, without the format specifications of its f-strings."""
    if isinstance(node, ast.FormattedValue):
        return []
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    return [text for child in ast.iter_child_nodes(node) for text in strings(child)]


def test_the_search_for_typed_numbers_finds_them():
    assert typed_numbers("It fell by 0.61 bit, to 5 % of 1-100.") == ["0.61", "5", "1-100."]
    kept = "In $x^2$, `a[1]`, {claim}`a/b.number`, Tülu 3 and arXiv:2606.29933 [there](x1.md)\n\n"
    kept += "```sh\n2\n```\n\n$$\n1\n$$ (eq-1)\n"
    assert typed_numbers(kept) == []


# -- what no file may hold


def test_cores_are_counted_where_the_system_does_not_say_which(monkeypatch):
    assert 1 <= cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS
    assert cores() == os.cpu_count()


def test_no_file_names_a_machine_or_a_registry():
    git = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(git, cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    hosts = "|".join(
        (
            "/ro" + "ot/",
            "/wo" + "rk/",
            "python" + r"hosted\.org",
            "npm" + r"js\.org",
            "py" + r"pi\.org",
        )
    )
    texts = [
        REPOSITORY / name
        for name in listed
        if not name.startswith("book/_vendor/")
        and (REPOSITORY / name).is_file()
        and not name.endswith((".safetensors", ".parquet", ".json", ".jsonl", ".csv"))
    ]
    assert texts
    assert [path.name for path in texts if re.search(hosts, path.read_text(encoding="utf-8"))] == []
