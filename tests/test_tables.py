"""Tables of answers: what is read, what is told, and a sentence for whatever cannot be read."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystal import texts
from crystal.ask.tasks import TASKS
from crystal.errors import CrystalError
from crystal.tables import sheets
from crystal.tables import table as tables
from crystal.tables.sheets import stage_names
from crystal.tables.table import Table, read_table

DISTRIBUTION = "ladder,stage,task,prompt,option,probability"
COUNT = DISTRIBUTION.replace("probability", "count")


def write(folder: Path, text: str, name: str = "answers.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def lines(*rows: str, header: str = DISTRIBUTION) -> str:
    return "\n".join((header, *rows)) + "\n"


def two(base: str = "0.5 0.5", sft: str = "0.9 0.1", header: str = DISTRIBUTION) -> str:
    """A ladder L of two stages, one task, one prompt, two options."""
    return lines(
        *(
            f"L,{stage},t,p,{option},{value}"
            for stage, distribution in (("base", base), ("sft", sft))
            for option, value in zip("ab", distribution.split())
        ),
        header=header,
    )


def distribution(table: Table, stage: str, task: str = "t", prompt: str = "p") -> list[float]:
    frame = table.frame
    mine = (frame.stage == stage) & (frame.task == task) & (frame.prompt == prompt)
    return frame[mine].distribution.item().tolist()


def read(folder: Path, text: str, name: str = "answers.csv", **how) -> Table:
    return read_table(write(folder, text, name), **how)


def told(table: Table, *parts: str) -> bool:
    """Whether one note holds all the parts."""
    return any(all(part in note for part in parts) for note in table.notes)


def same(one: Table, other: Table) -> None:
    for name in ("options", "stages", "notes", "ladders"):
        assert getattr(one, name) == getattr(other, name)
    pd.testing.assert_frame_equal(
        one.frame.drop(columns="distribution"), other.frame.drop(columns="distribution")
    )
    assert all(
        np.array_equal(a, b)
        for a, b in zip(one.frame.distribution, other.frame.distribution, strict=True)
    )


# -- what is read


def test_a_small_table(tmp_path):
    table = read(tmp_path, two())
    columns = "ladder stage task prompt cluster wording distribution mass draws".split()
    assert list(table.frame) == columns
    rows = [["L", stage, "p", 1, np.inf] for stage in ("base", "sft")]
    assert table.frame[["ladder", "stage", "cluster", "mass", "draws"]].values.tolist() == rows
    assert (distribution(table, "base"), distribution(table, "sft")) == ([0.5, 0.5], [0.9, 0.1])
    assert (table.options, table.stages) == ({"t": ("a", "b")}, ("base", "sft"))
    assert table.ladders == {"L": ("base", "sft")}
    said = "nothing can be said about how answers depend on the prompt, for L t."
    assert table.notes == (f"One prompt: {said}",)


LETTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))
NAMES = st.text(LETTERS, min_size=1, max_size=6).map(texts.name)
NAMES = NAMES.filter(lambda name: name and name not in TASKS)
LATER = st.lists(st.sampled_from(["sft", "dpo", "rlvr", "instruct"]), min_size=1, unique=True)


@st.composite
def frames(draw) -> pd.DataFrame:
    """Tidy rows of random distributions or counts: some zero, some options left out, some mass
    outside.
    """

    def some(least: int, most: int) -> list[str]:
        return draw(st.lists(NAMES, min_size=least, max_size=most, unique=True))

    tasks = {task: some(2, 4) for task in some(1, 2)}
    prompts, stages, counted = some(1, 3), ["base", *draw(LATER)], draw(st.booleans())
    ladders, rows = some(1, 2), []
    places = ((x, y) for x in ladders for y in draw(st.permutations(stages)))
    for (ladder, stage), task, prompt in itertools.product(places, tasks, prompts):
        # the last one is outside
        *listed, outside = (draw(st.integers(0, 5)) for _ in range(len(tasks[task]) + 1))
        weights = [1 + listed[0], *listed[1:], min(outside, 3)]  # all are answered
        for option, weight in zip((*tasks[task], ""), weights):
            value = weight if counted else weight / sum(weights)
            rows.append((ladder, stage, task, prompt, option, value))
    return pd.DataFrame(
        rows, columns=[*tables.GROUP, "option", "count" if counted else "probability"]
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames(), st.randoms(use_true_random=False))
def test_every_format_gives_the_same_table(tmp_path_factory, rows, random):
    folder = tmp_path_factory.mktemp("formats")
    rows.to_csv(folder / "x.csv", index=False)
    rows.to_csv(folder / "required.csv", index=False, encoding="utf-8-sig")
    rows.to_csv(folder / "x.tsv", sep="\t", index=False)
    rows.to_json(folder / "x.jsonl", orient="records", lines=True, double_precision=15)
    rows.replace({"option": {"": None}}).to_parquet(folder / "x.parquet")
    first = read_table(folder / "x.csv")
    value = rows.columns[-1]
    listed = rows[rows.option != ""]
    whole, on = rows.groupby(tables.GROUP)[value].sum(), listed.groupby(tables.GROUP)[value].sum()
    assert len(first.frame) == len(whole)
    for row in first.frame.itertuples():
        key = (row.ladder, row.stage, row.task, row.prompt)
        own = listed.set_index([*tables.GROUP, "option"]).sort_index().loc[key, value]
        assert np.allclose(
            row.distribution, own[list(first.options[row.task])] / own.sum(), atol=1e-12
        )
        assert np.isclose(row.mass, on[key] / whole[key])
        assert row.draws == (on[key] if value == "count" else np.inf)
    for name in ("required.csv", "x.tsv", "x.parquet"):
        same(read_table(folder / name), first)
    close = read_table(folder / "x.jsonl")  # fifteen digits
    assert close.options == first.options
    assert all(
        np.allclose(a, b)
        for a, b in zip(close.frame.distribution, first.frame.distribution, strict=True)
    )
    mixed = rows.sample(frac=1, random_state=random.randrange(100))
    mixed.to_csv(folder / "mixed.csv", index=False)
    assert read_table(folder / "mixed.csv").stages == first.stages
    assert len(read_table(folder / "mixed.csv").frame) == len(first.frame)


def test_numbers_are_names_and_missing_cells_empty_options(tmp_path):
    rows = [
        {"stage": stage, "task": "ten", "prompt": 3, "option": option, "count": 5}
        for stage in ("base", "sft")
        for option in (7, 10, None)
    ]
    del rows[2]["option"]
    table = read(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n", "x.jsonl")
    pd.DataFrame(rows).to_parquet(tmp_path / "x.parquet")  # an option column of floats with a gap
    same(read_table(tmp_path / "x.parquet"), table)
    assert table.options["ten"] == TASKS["ten"].options
    assert table.frame[["prompt", "draws", "mass"]].values.tolist() == [["3", 10, 2 / 3]] * 2
    assert table.frame.distribution[0].tolist() == [0, 0, 0, 0, 0, 0, 0.5, 0, 0, 0.5]
    assert told(table, "ten", "never", "1, 2, 3, 4, 5, 6 and 2 more")


def test_a_million_rows(tmp_path):
    rng = np.random.default_rng(0)
    names = ([f"prompt {i}" for i in range(500)], [f"option {i}" for i in range(250)])
    parts = [["A", "B"], ["sft", "base"], ["t", "u"], *names]
    rows = pd.MultiIndex.from_product(parts, names=DISTRIBUTION.split(",")[:-1]).to_frame(
        index=False
    )
    distributions = rng.dirichlet(np.ones(250), size=4000)
    rows["probability"] = distributions.ravel()
    rows.to_parquet(tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet")
    assert len(rows) == 10**6 and len(table.frame) == 4000 and table.stages == ("base", "sft")
    first = table.frame.query("ladder == 'A' and task == 't' and stage == 'sft'").distribution
    assert np.allclose(np.stack(first), distributions[:500])


def test_stages_by_name_by_option_and_in_canonical_order(tmp_path):
    names = ("Final", "DPO", "chat", "SFT", "Pretrained")
    rows = [f"{stage},t,p,{option},0.5" for stage in names for option in "ab"]
    table = read(tmp_path, lines(*rows, header=DISTRIBUTION.partition(",")[2]))
    assert table.ladders == {"answers": ("base", "sft", "dpo", "rlvr", "instruct")}
    assert told(table, "Final as rlvr", "chat as instruct", "Pretrained as base")
    path = write(tmp_path, two().replace("base", "step0").replace("sft", "step-1000"), "steps.csv")
    given = stage_names("base=step0, sft=step-1000")
    assert read_table(path, stages=given).ladders == {"L": ("base", "sft")}
    for stages, said in (
        ({}, r"which stage 'step0' is \(.*column stage\).*--stages sft=step0"),
        ({"bas": "step0"}, "unknown stage 'bas', did you mean 'base'"),
        ({"base": "step1"}, r"unknown stage in .*steps.csv 'step1'.*step0, step-1000"),
    ):
        with pytest.raises(CrystalError, match=said):
            read_table(path, stages=stages)
    with pytest.raises(CrystalError, match="'base=' is not of the form stage=name"):
        stage_names("base=,sft=x")


def test_the_ladder_is_the_file_the_option_or_one_of_the_column(tmp_path):
    bare = "\n".join(line.partition(",")[2] for line in two().splitlines())
    assert list(read(tmp_path, bare, "mine.csv").ladders) == ["mine"]
    assert list(read(tmp_path, bare, "mine.csv", ladder="M").ladders) == ["M"]
    both = write(tmp_path, two() + two().replace("L,", "M,").partition("\n")[2])
    assert list(read_table(both).ladders) == ["L", "M"]
    assert list(read_table(both, ladder="M").ladders) == ["M"]
    with pytest.raises(CrystalError, match="unknown ladder of .* 'N'"):
        read_table(both, ladder="N")


def test_options_of_a_known_task_are_read_like_its_answers(tmp_path):
    header = DISTRIBUTION.partition(",")[2]
    rows = [f"{s},coin,p,{o},0.5" for s in ("base", "sft") for o in ("TAILS", "head")]
    table = read(tmp_path, lines(*rows, header=header))
    assert table.options == {"coin": ("heads", "tails")}
    edge = read(tmp_path, lines(*rows, "base,coin,p,edge,0", header=header))
    assert edge.options == {"coin": ("TAILS", "head", "edge")}
    assert told(edge, "coin", "edge", "none of its options") and told(edge, "never", "edge")
    twice = [f"{s},coin,p,{o},0.2" for s in ("base", "sft") for o in ("tails", "head", "heads")]
    with pytest.raises(CrystalError, match="rows 3 and 4 give the same option, 'head' and 'heads'"):
        read(tmp_path, lines(*twice, header=header))


# -- what is told


def test_mass_outside_the_options_is_told(tmp_path):
    table = read(tmp_path, two("0.3 0.1", "0.6 0.2") + "L,sft,t,p,,0.2\n")
    assert np.allclose([distribution(table, stage) for stage in ("base", "sft")], [0.75, 0.25])
    assert np.allclose(table.frame.mass, [0.4, 0.8])
    assert told(table, "2 of 2 groups", "0.6 on average, 0.4 at least")


def test_a_given_mass_is_kept(tmp_path):
    header = DISTRIBUTION + ",mass"
    table = read(tmp_path, two("0.5,0.9 0.5,0.9", "0.9,1 0.1,1", header))
    assert table.frame.mass.tolist() == [0.9, 1] and distribution(table, "base") == [0.5, 0.5]
    assert told(table, "1 of 2 groups", "0.9 on average")
    rounded = read(tmp_path, two("0.5,0.9 0.4995,0.9", "0.9,1 0.1,1", header))
    assert told(rounded, "miss 1 by at most 0.0005 (rounding)")
    assert sum(distribution(rounded, "base")) == pytest.approx(1)


def test_rounding_above_one_is_told(tmp_path):
    table = read(tmp_path, two("0.5004 0.5001"))
    said = "exceed 1 by at most 0.0005 (rounding)", "divided by their sums"
    assert told(table, "1 of 2 groups", *said)
    assert sum(distribution(table, "base")) == pytest.approx(1) and table.frame.mass.tolist() == [
        1,
        1,
    ]
    assert not told(read(tmp_path, two()), "rounding")


def test_too_little_mass_may_be_rounding(tmp_path):
    said = "1 - 0.0001 at least (rounding alone could do that)"
    assert told(read(tmp_path, two("0.5 0.4999")), said)
    assert not told(read(tmp_path, two("0.5 0.49")), "rounding")


def test_counts_and_groups_without_a_draw(tmp_path):
    drawn = (("a", 3), ("b", 1), ("", 4))
    places = [f"L,{stage},t,{prompt}" for stage in ("base", "sft") for prompt in "pq"]
    rows = [f"{place},{option},{n}" for place in places for option, n in drawn]
    table = read(tmp_path, lines(*rows, header=COUNT))
    assert distribution(table, "base") == [0.75, 0.25] and told(table, "4 to 4 draws")
    assert table.frame[["draws", "mass"]].values.tolist() == [[4, 0.5]] * 4
    rows = [row[:-1] + "0" if "sft,t,q" in row else row for row in rows]
    less = read(tmp_path, lines(*rows, header=COUNT))
    assert told(less, "1 of 4 groups have no draw") and told(less, "Prompts", "L t 1 of 2")
    assert set(less.frame.prompt) == {"p"} and len(less.frame) == 2
    with pytest.raises(CrystalError, match="no group has a draw"):
        read(tmp_path, two("0 0", "0 0", COUNT))


def test_unanswered_groups_are_left_out_whatever_says_so(tmp_path):
    """A column, the empty option, counts or a sum: one rule, and each ladder by itself."""
    low = {"p": "0.5,0.3,0.2", "q": "0.1,0.05,0.85", "r": "0,0,1", "s": "0.15,0.05,0.8"}
    rows = {
        stage: low if stage == "sft" else dict.fromkeys(low, "0.5,0.5,0")
        for stage in ("base", "sft")
    }

    def table(ladder: str, rows: dict = rows, scale: int = 0, options: int = 3) -> list[str]:
        cells = (
            (s, p, at, x)
            for s, each in rows.items()
            for p, xs in each.items()
            for at, x in enumerate(xs.split(",")[:options])
        )
        return [f"{ladder},{s},t,{p},{'ab'[at : at + 1]},{round(float(x) * scale) if scale else x}"
                for s, p, at, x in cells]  # fmt: skip

    ways = {
        "empty": table("L"),
        "sums": [row for row in table("L", options=2) if "r" not in row[7:9]],
    }
    for way, some in ways.items():
        found = read(tmp_path, lines(*some))
        kept = found.frame[found.frame.stage == "sft"].prompt.tolist()
        assert kept == ["p", "s"], way
        assert told(found, "L: base", "sft 2 of"), way
    found = read(tmp_path, lines(*table("L", scale=100), header=COUNT))
    assert found.frame[found.frame.stage == "sft"].prompt.tolist() == ["p", "s"]
    beside = {"base": {"p": "0.5,0.5,0"}, "sft": {"p": "0.9,0.1,0"}}
    both = read(tmp_path, lines(*table("L"), *table("M", beside)))
    assert set(both.asked.ladder) == {"L"} and set(both.ladders) == {"L", "M"}


def test_ladders_with_unlike_options_are_told(tmp_path):
    rows = [f"{ladder},{stage},t,p,{option},{1 / len(options)}"
            for ladder, options in (("L", "ab"), ("M", "abcd")) for stage in ("base", "sft")
            for option in options]  # fmt: skip
    assert told(read(tmp_path, lines(*rows)), "L 2 of 4, M 4 of 4")


def test_options_that_differ_in_capitals_are_told(tmp_path):
    assert told(read(tmp_path, two().replace(",b,", ",A,")), "capitals alone", "a, A")


def test_large_numbers_beside_empty_cells_stay_apart(tmp_path):
    """As floats, two clusters of parquet near 2**60 would be one; true is no 1 either."""
    rows = [("L", s, "t", p, o, 0.5, c) for s in ("base", "sft") for o in "ab"
            for p, c in (("p", 2**60), ("q", 2**60 + 1), ("r", None))]  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*DISTRIBUTION.split(","), "cluster"])
    frame["cluster"] = pd.array([row[-1] for row in rows], dtype="Int64")
    frame.to_parquet(tmp_path / "x.parquet")
    assert set(read_table(tmp_path / "x.parquet").frame.cluster) == {
        str(2**60),
        str(2**60 + 1),
        "r",
    }
    cells = pd.DataFrame({"prompt": [True, 1, "1", 1.0]}, dtype=object)
    assert list(sheets.words(cells, "prompt")) == ["True", "1", "1", "1"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"\x1f\x8b\x08\x00", "packed by gzip.*gunzip"),
        ("x.jsonl", b"PAR1\x15\x04", "parquet.*give it the extension .parquet"),
        ("x.csv", b"PK\x03\x04\x14", "zip archive.*save the sheet as CSV"),
        ("x.csv", b"ladder\tstage\ttask\n", "separated by '.t'.*write ',' between"),
        (" .csv", two().replace("ladder,", "").replace("L,", "").encode(), "no name.*--ladder"),
        ("x.csv", two().replace(",t,", ",All  Tasks,").encode(), "no task may be called"),
        ("x.csv", two().replace("sft", "a b").encode(), "say --stages 'sft=a b'"),
    ],
)
def test_a_file_of_another_kind_says_what_it_is(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CrystalError, match=said):
        read_table(tmp_path / name)


def test_a_long_cell_is_read(tmp_path):
    assert (
        read(tmp_path, two().replace(",p,", f",{'p' * 200_000},")).frame.prompt.str.len().min()
        > 1e5
    )


def test_the_old_name_of_a_cluster_is_spelled_out(tmp_path):
    rows = [f"L,{stage},t,p,{option},0.5,who" for stage in ("base", "sft") for option in "ab"]
    with pytest.raises(CrystalError, match="the column 'Unit' is not spelled 'unit'"):
        read(tmp_path, lines(*rows, header=DISTRIBUTION + ",Unit"))


def test_prompts_in_common_tasks_that_lack_and_units(tmp_path):
    header = DISTRIBUTION + ",unit"
    asked = ["base,t,p", "base,t,q", "sft,t,p", "sft,t,r", "base,u,p"]
    rows = [f"L,{place},{option},0.5,who" for place in asked for option in "ab"]
    table = read(tmp_path, lines(*rows, header=header))
    kept = table.frame[["stage", "task", "prompt"]].agg(",".join, axis=1).tolist()
    assert kept == ["base,t,p", "sft,t,p", "base,u,p"]
    assert told(table, "Prompts", "left out", "L t 2 of 3") and told(table, "Tasks", "L u (no sft)")
    assert table.frame.cluster.tolist() == ["who"] * 3 and told(
        table, "1 prompts are asked by 1 clusters"
    )
    rows[0] = rows[0].replace("who", "")
    with pytest.raises(CrystalError, match="rows 2 and 3 give one prompt two values of cluster"):
        read(tmp_path, lines(*rows, header=header))


def test_columns_not_used_and_blank_lines(tmp_path):
    text = "\n\n" + two().replace("\n", ",,x\n").replace("\nL,sft", "\n\nL,sft")
    text = text.replace("y,,x", "y,,mass_on_options")
    table = read(tmp_path, text)
    assert told(table, "Columns not used: mass_on_options")
    assert distribution(table, "sft") == [0.9, 0.1]
    with pytest.raises(CrystalError, match="row 7, column probability"):  # blank lines count
        read(tmp_path, text.replace("a,0.9", "a,x"))


# -- bad input: one sentence with file, row, column and a hint


BAD = {
    "negative": (
        two("-0.5 0.5"),
        r"the probability -0.5 is negative \(.*answers.csv, row 2, column probability\)",
    ),
    "above one": (
        two("0.5 1.5"),
        r"the probability 1.5 is above 1 \(.*row 3, column probability\)",
    ),
    "no number": (two("0,5 0.5"), r"has 7 cells, the header 6 \(.*row 2\)"),
    "text": (
        two("0.5 half"),
        r"the probability half is not a number \(.*row 3, column probability\)",
    ),
    "nan": (two("0.5 nan"), r"nan is not a number \(.*row 3"),
    "infinite": (two("inf 0.5"), r"inf is infinite \(.*row 2"),
    "empty": (lines("L,base,t,p,a,"), r"is empty \(.*row 2, column probability"),
    "sum above one": (
        two("0.5 0.5", "0.9 0.2"),
        r"sum to 1.1, above 1 \(.*row 4, column probability, where its group begins\)",
    ),
    "sum zero": (two("0.5 0.5", "0 0"), r"sum to 0 \(.*row 4"),
    "half a count": (two("3 4", "3 1.5", COUNT), r"count 1.5 is not a whole .*row 5, column count"),
    "negative count": (two("3 4", "3 -1", COUNT), r"count -1 is negative .*row 5, column count"),
    "both": (
        two("0.5,1 0.5,1", "0.5,1 0.5,1", DISTRIBUTION + ",count"),
        r"a probability \(row 2\), some a count \(row 2\)",
    ),
    "mixed": (
        two("0.5, 0.5,", ",3 ,4", DISTRIBUTION + ",count"),
        r"a probability \(row 2\), some a count \(row 4\)",
    ),
    "twice": (two() + "L,base,t,p,b,0\n", "rows 3 and 6 give the same option, 'b',"),
    "empty twice": (
        two("0.5 0.4") + "L,base,t,p,,0.05\nL,base,t,p, ,0.05\n",
        "rows 6 and 7 give the same option, the empty one",
    ),
    "mass above one": (
        two("0.5,1.2 0.5,1.2", "1, 0,", DISTRIBUTION + ",mass"),
        r"the mass 1.2 is above 1 .*row 2, column mass",
    ),
    "two masses": (
        two("0.5,0.9 0.5,0.8", "1, 0,", DISTRIBUTION + ",mass"),
        "rows 2 and 3 give one prompt two values of mass",
    ),
    "mass, short sum": (
        two("0.5,0.8 0.4,0.8", "1, 0,", DISTRIBUTION + ",mass"),
        "the options sum to 0.9, neither to their mass nor to 1",
    ),
    "no stage": (
        two().replace("stage", "phase"),
        "there is no column stage; the columns are ladder, phase, task",
    ),
    "near": (two().replace("option", "answer"), "no column option; the columns are .*answer"),
    "nearer": (
        two().replace("probability", "probabilty"),
        "no column probability or count; the columns are .*probabilty",
    ),
    "no value": (two().replace("probability", "x"), "no column probability or count"),
    "case": (
        two("0.5,1 0.5,1", "1,1 0,1", DISTRIBUTION + ",Mass"),
        "the column 'Mass' is not spelled 'mass'",
    ),
    "same name": (two().replace("prompt", "task"), "two columns are called 'task'"),
    "empty task": (two().replace("sft,t", "sft,"), r"the task is empty \(.*row 4, column task\)"),
    "unknown stage": (two().replace("sft", "sft-2"), "which stage 'sft-2' is"),
    "two names": (two() + "L,SFT,t,q,a,1\n", "'sft' and 'SFT' are both read as sft"),
    "no base": (two().replace("base", "dpo"), "has only sft, dpo: nothing to compare"),
    "nothing in common": (
        two().replace("sft,t,p", "sft,t,q"),
        "stages of L t have no prompt in common",
    ),
    "separator": (two().replace(",", ";"), "the header is one cell.*seem to be separated by ';'"),
    "long row": (two() + "L,sft,t,q,a,1,2\n", r"has 7 cells, the header 6 \(.*row 6\)"),
    "open quote": (
        two() + '"L,sft,t,q,a,1\n',
        r"not CSV: unexpected end of data \(.*row 6\).*close every quote",
    ),
    "empty file": (" \n", "the table has no rows"),
    "no rows": (DISTRIBUTION + "\n", "the table has no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_a_sentence(tmp_path, case):
    text, said = BAD[case]
    path = write(tmp_path, text)
    with pytest.raises(CrystalError, match=said) as caught:
        read_table(path)
    assert str(path) in str(caught.value) and caught.value.hint and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.csv", two().encode("utf-16"), "not UTF-8 at byte 0.*iconv -f UTF-16"),
        ("x.csv", two().encode("utf-16-le"), "not UTF-8 at byte 1.*iconv -f UTF-16"),
        (
            "x.csv",
            two().replace("L", "Tülu").encode("latin-1"),
            "not UTF-8 at byte 45.*iconv -f WINDOWS-1252",
        ),
        (
            "x.csv",
            b"\xef\xbb\xbf" + two().replace("L", "Tülu").encode("latin-1"),
            "not UTF-8 at byte 48",
        ),
        ("x.xlsx", b"PK", "the extension '.xlsx' cannot be read.*csv, .tsv, .jsonl, .parquet"),
        ("x.csv.gz", b"", "the extension '.gz' cannot be read"),
        ("x.parquet", two().encode(), "not a whole parquet file"),
        ("x.jsonl", b'{"stage": "base"}\n\n{"stage": \n', "broken JSON.*line 3"),
        ("x.jsonl", b'[\n{"stage": "base"}\n]\n', "broken JSON.*line 1"),
        ("x.jsonl", b'{"stage": "base"}\n3\n', "no object: 3.*line 2"),
        ("x.jsonl", b'{"stage": {}\n"y": 1},{"z": 3}\n', "broken JSON.*line 1"),
        (
            "x.jsonl",
            b'{"stage": "base", "task": "t", "prompt": "p", "option": ["a"], "count": 1}\n',
            "a list.*row 1, column option",
        ),
    ],
)
def test_a_bad_file_is_a_sentence(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CrystalError, match=said) as caught:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and caught.value.hint


def test_a_missing_file_a_folder_and_a_mark_of_byte_order(tmp_path):
    with pytest.raises(CrystalError, match="there is no such table"):
        read_table(tmp_path / "x.csv")
    (tmp_path / "y.csv").mkdir()
    with pytest.raises(CrystalError, match="this is a folder"):
        read_table(tmp_path / "y.csv")
    same(read_table(write(tmp_path, "\ufeff" + two())), read_table(write(tmp_path, two())))
    same(
        read_table(write(tmp_path, two().replace("\n", "\r\n"))), read_table(write(tmp_path, two()))
    )


# -- the published tables

PUBLISHED = Path(__file__).parent.parent / "data/published"


def test_one_word_choices_of_three_ladders():
    table = read_table(PUBLISHED / "one_word_choice.csv")
    assert table.ladders == dict.fromkeys(
        ("Tulu-3-8B", "Olmo-3-7B", "Olmo-3.1-32B"), ("base", "sft", "dpo", "rlvr")
    )
    assert table.frame.groupby(["ladder", "stage", "task"]).prompt.agg(set).tolist() == [
        {"name", "choose"}
    ] * (3 * 4 * 10)
    assert {len(options) for options in table.options.values()} == {5, 6, 7, 8}
    assert (
        np.allclose(
            [distribution.sum() for distribution in table.frame.distribution], 1, atol=1e-12
        )
        and table.frame.mass.between(1 - 2e-6, 1).all()
    )
    sums = (
        pd.read_csv(PUBLISHED / "one_word_choice.csv")
        .groupby(["ladder", "stage", "task", "prompt"])
        .probability.sum()
    )
    assert len(sums) == 240 and np.allclose(sums, 1, atol=2e-6)
    assert told(table, "rl as rlvr")


def test_base_and_instruct_of_four_families():
    table = read_table(PUBLISHED / "base_and_instruct.csv")
    families = ("Llama-3.1-8B", "gemma-2-2b", "OLMoE-1B-7B-0924", "Mistral-7B-v0.3")
    assert table.ladders == dict.fromkeys(families, ("base", "instruct"))
    assert (
        len(table.frame) == 4 * 2 * 3
        and set(table.frame.prompt) == {"asked"}
        and told(table, "One prompt")
    )
    assert table.options == {task: TASKS[task].options for task in ("coin", "die", "ten")}
    assert (
        np.allclose(
            [distribution.sum() for distribution in table.frame.distribution], 1, atol=1e-12
        )
        and table.frame.mass.min() == 0.9954
    )
    seven = table.frame.query("task == 'ten'").assign(
        seven=lambda frame: [distribution[6] for distribution in frame.distribution]
    )
    assert seven.query("stage == 'base'").seven.round(2).between(0.12, 0.16).all()
    assert seven.query("stage == 'instruct'").seven.round(2).between(0.51, 0.64).all()


def test_reference_points_say_where_they_come_from():
    points = pd.read_csv(PUBLISHED / "reference_points.csv", dtype=str)
    assert (
        list(points) == ["source", "arxiv", "result", "read"]
        and points.source.is_unique
        and points.notna().all(axis=None)
    )
    assert points.arxiv.str.fullmatch(r"\d{4}\.\d{5}").all() and points.arxiv.is_unique
    assert set(points["read"]) <= {"read", "abstract", "notes", "summary", "unstated"}
    assert "2505.00047" in set(points.arxiv)
    told = (PUBLISHED / "README.md").read_text()
    assert (
        "Copyright (c) 2026 Tapan Parikh" in told
        and "Permission is hereby granted" in told
        and "cc05196c" in told
    )
    rows = {path.name: len(pd.read_csv(path)) for path in PUBLISHED.glob("*.csv")}
    assert all(f"`{name}` | {count:,} |" in told for name, count in rows.items()) and len(rows) == 3


PIECES = [*'",\n\t;\ufeff\x00\u2028\xe9L7p', "", "0", "1", "-1", "1e400", "nan", "base", "heads"]
CELLS = st.sampled_from(
    [
        None,
        "",
        0,
        1,
        0.5,
        -1,
        True,
        "heads",
        [1],
        {"a": 1},
        float("inf"),
        float("nan"),
        10**400,
        "base",
    ]
)
SOUND = lines(
    *(
        f"L,{stage},coin,p,{option},0.5,u,0.9"
        for stage in ("base", "sft")
        for option in ("heads", "tails")
    ),
    header=DISTRIBUTION + ",unit,mass",
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SOUND)), st.integers(0, 5), st.sampled_from(PIECES)),
        min_size=1,
        max_size=4,
    )
)
def test_a_spoilt_text_is_a_table_or_a_sentence(tmp_path_factory, edits):
    text = SOUND
    for place, removed, piece in edits:
        text = text[:place] + piece + text[place + removed :]
    readable(write(tmp_path_factory.mktemp("spoilt"), text))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), CELLS), min_size=1, max_size=4))
def test_spoilt_cells_are_a_table_or_a_sentence(tmp_path_factory, edits):
    header, *rows = (line.split(",") for line in SOUND.splitlines())
    objects = [
        dict(zip(header, row, strict=True)) | {"probability": 0.5, "mass": 0.9} for row in rows
    ]
    for row, column, cell in edits:
        objects[row][header[column]] = cell
    readable(
        write(tmp_path_factory.mktemp("spoilt"), "\n".join(map(json.dumps, objects)), "x.jsonl")
    )


def readable(path: Path) -> None:
    """Either distributions that sum to 1 or one sentence with a hint; nothing else may come out."""
    try:
        distributions = np.concatenate(
            [
                distribution.sum(keepdims=True)
                for distribution in read_table(path).frame.distribution
            ]
        )
    except CrystalError as error:
        assert error.hint and str(path) in str(error)
    else:
        assert len(distributions) and np.allclose(distributions, 1)


def test_true_is_no_number_and_a_number_may_be_written_as_text(tmp_path):
    rows = [
        {"stage": stage, "task": "t", "prompt": "p", "option": option, "count": "2"}
        for stage in ("base", "sft")
        for option in "ab"
    ]
    assert read_table(
        write(tmp_path, "\n".join(map(json.dumps, rows)), "x.jsonl")
    ).frame.draws.tolist() == [4, 4]
    pd.DataFrame(rows).assign(count=[[1]] * 4).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(
        CrystalError, match=r"the count \[1\] is not a number \(.*row 1, column count"
    ):
        read_table(tmp_path / "x.parquet")
    pd.DataFrame(rows).assign(option=[[1, 2]] * 4).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(
        CrystalError, match=r"a list or an object, not a name \(.*row 1, column option"
    ):
        read_table(tmp_path / "x.parquet")
    rows[1]["count"] = True
    with pytest.raises(
        CrystalError, match=r"the count True is not a number \(.*row 2, column count"
    ):
        read_table(write(tmp_path, "\n".join(map(json.dumps, rows)), "x.jsonl"))


def test_distributions_too_large_to_hold_are_refused_before_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LARGEST", 3)
    with pytest.raises(
        CrystalError, match="task 't' has 2 options and 2 distributions, too many to hold"
    ):
        read_table(write(tmp_path, two()))


def test_words_drop_space_and_keep_order():
    sheet = pd.DataFrame({"x": [" b", "a", "", "b", None, 7.0, 7]}, dtype=object)
    found = sheets.words(sheet, "x")
    assert (found.codes.tolist(), list(found.categories)) == (
        [0, 1, -1, 0, -1, 2, 2],
        ["b", "a", "7"],
    )
