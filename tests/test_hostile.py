"""Tables and logs of strangers: the right numbers, or a sentence: what, where, what to type."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
from pathlib import Path

import fuzz
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystal import texts
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.measure import claims
from crystal.measure import evidence as ev
from crystal.measure import inference as inf
from crystal.measure import quantities as ph
from crystal.tables import importers, sheets, survey
from crystal.tables.foreign import Asked
from crystal.tables.importers import tally
from crystal.tables.table import read_table

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def rows(counts: bool = False, options=("a", "b"), **more) -> list[dict]:
    """A valid table of three prompts."""
    return [
        {
            "ladder": "L",
            "stage": stage,
            "task": "t",
            "prompt": f"p{prompt}",
            "option": option,
            "count" if counts else "probability": 20 if counts else 1 / len(options),
        }
        | more
        for stage in ("base", "sft")
        for prompt in range(3)
        for option in options
    ]


def write(folder: Path, table: list[dict], name: str = "x.csv") -> Path:
    """The rows as a file of the kind its name says."""
    path = folder / name
    path.write_bytes(fuzz.packed(table, path.suffix))
    return path


def refusal(path: Path, **how) -> CrystalError:
    with pytest.raises(CrystalError) as caught:
        read_table(path, **how)
    assert caught.value.hint and str(path) in str(caught.value) and "\n" not in str(caught.value)
    return caught.value


# -- names


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_accents_composed_or_not_are_one_option(suffix, tmp_path):
    table = rows(options=("\u00e9t\u00e9", "b"))
    for row in table[len(table) // 2 :]:
        row["option"] = row["option"].replace("\u00e9", "e\u0301")
    assert read_table(write(tmp_path, table, f"x{suffix}")).options == {"t": ("\u00e9t\u00e9", "b")}
    both = rows(options=("\u00e9", "e\u0301"))
    assert "give the same option, '\u00e9'" in str(refusal(write(tmp_path, both, f"y{suffix}")))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("number", [7.0, np.float32(7), "7.0", "7.00", 7])
def test_whole_numbers_are_one_name_in_every_format(suffix, number, tmp_path):
    table = rows(options=("7", "b"))
    for row in table[len(table) // 2 :]:
        row["option"] = {"7": getattr(number, "item", lambda: number)()}.get(row["option"], "b")
    assert read_table(write(tmp_path, table, f"x{suffix}")).options == {"t": ("7", "b")}


@pytest.mark.parametrize("suffix", (".csv", ".jsonl", ".parquet"))
@pytest.mark.parametrize("column", ["ladder", "stage", "task", "prompt", "option", "cluster"])
@pytest.mark.parametrize("bad", ["a\x1b[31m", "x\u202ey", "a\nb"])
def test_a_hostile_name_is_refused_with_its_place(bad, column, suffix, tmp_path):
    table = rows(unit="u")
    table[4] = table[4] | {column: bad}
    said = str(refusal(write(tmp_path, table, f"x{suffix}")))
    row = {".csv": r"\d", ".jsonl": "5", ".parquet": "5"}[suffix]
    assert re.search(f"the control character U\\+.*row {row}, column {column}", said)
    assert not texts.HOSTILE.search(said)


def test_half_a_character_and_bytes_are_no_names(tmp_path):
    table = rows()
    table[1]["option"] = "\ud800"
    assert "half a character" in str(refusal(write(tmp_path, table, "x.jsonl")))
    pq.write_table(
        pa.Table.from_pylist(rows()).set_column(4, "option", [[b"a", b"b"] * 6]),
        tmp_path / "x.parquet",
    )
    assert "is bytes" in str(refusal(tmp_path / "x.parquet"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_of_columns_are_checked_too(suffix, tmp_path):
    assert "header, column 7" in str(
        refusal(write(tmp_path, rows(**{"a\x1bb": "x"}), f"x{suffix}"))
    )
    said = str(
        refusal(
            write(tmp_path, [row | {"\u00e9": 1, "e\u0301": 2} for row in rows()], f"y{suffix}")
        )
    )
    assert "two columns are called '\u00e9'" in said


@pytest.mark.parametrize("task", ["all tasks", " ALL TASKS "])
def test_no_task_is_called_as_all_of_them(task, tmp_path):
    assert "no task may be called" in str(
        refusal(write(tmp_path, [row | {"task": task} for row in rows()]))
    )


CELLS = st.text(
    st.characters(codec="utf-8").filter(lambda c: not texts.HOSTILE.match(c)), max_size=6
)


@settings(max_examples=25)
@given(
    st.lists(
        st.sampled_from("'=+-@1. ")
        .flatmap(lambda c: CELLS.map(lambda text: c + text))
        .map(texts.name)
        .filter(bool),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    st.sampled_from([".csv", ".jsonl", ".parquet"]),
)
def test_names_come_back_as_they_were_written(tmp_path_factory, options, suffix):
    """Whatever a spreadsheet would compute, through every table that this package writes."""
    folder = tmp_path_factory.mktemp("cells")
    frame = pd.DataFrame(rows(counts=True, options=options))
    importers.save(frame, folder / f"x{suffix}")
    assert read_table(folder / f"x{suffix}").options == {"t": tuple(options)}
    back = [cells["option"] for _, cells in importers.rows(folder / f"x{suffix}")]
    assert back == frame["option"].tolist()
    importers.write(frame.to_dict("records"), folder / "plain.csv")
    cells = [
        line.split(",")[4].strip('"')
        for line in (folder / "plain.csv").read_text("utf-8").splitlines()[1:]
    ]
    assert not [cell for cell in cells if cell[:1] in ("=", "@")]


# -- numbers


@pytest.mark.parametrize("count", [1e308, 1e9, 2.0**63])
@pytest.mark.parametrize("suffix", (".csv", ".jsonl", ".parquet"))
def test_more_draws_than_can_be_dealt_are_refused(count, suffix, tmp_path):
    table = rows(counts=True)
    table[3]["count"] = count
    said = str(refusal(write(tmp_path, table, f"x{suffix}")))
    assert re.search(r"its stage has .* draws on its task, above 100000000 .*row \d.*probab", said)


def test_draws_of_a_stage_together_are_bounded(tmp_path):
    table = [row | {"count": 3 * 10**7} for row in rows(counts=True)]
    assert "its stage has 180000000 draws on its task" in str(refusal(write(tmp_path, table)))
    table = [row | {"count": 10**7} for row in rows(counts=True)]
    found = survey.survey(read_table(write(tmp_path, table)), "L", permutations=19)
    assert all(np.isfinite(v.p) for v in found["t"])


def test_the_smallest_probabilities_are_distributions_or_refused(tmp_path):
    table = rows(options=("a", "b", "c"))
    for row in table:
        row["probability"] = {"a": 1 - 1e-9, "b": 5e-324, "c": 0}[row["option"]]
    read = read_table(write(tmp_path, table))
    assert np.isfinite(np.stack(read.frame["distribution"])).all()
    for row in table:
        row |= {"probability": 5e-324, "mass": 0.9}
    assert "sum to 1.48e-323" in str(refusal(write(tmp_path, table)))


@pytest.mark.parametrize(
    "number", ["1_000", "\u0661", "1\u06f0", "0x10", "1e", True, [1], {"a": 1}, "nan", None]
)
@pytest.mark.parametrize("suffix", (".csv", ".jsonl", ".parquet"))
def test_what_is_no_number_is_refused(number, suffix, tmp_path):
    table = rows(counts=True)
    for row in table:
        row["count"] = number
    assert re.search("is not a number|is empty", str(refusal(write(tmp_path, table, f"x{suffix}"))))


@pytest.mark.parametrize(
    ("distribution", "above"), [((0.502, 0.502), "0.004"), ((1.00390625, 0), "0.0039")]
)
def test_rounded_probabilities_are_normalised(distribution, above, tmp_path):
    table = rows()
    for row in table:
        row["probability"] = distribution["ab".index(row["option"])]
    read = read_table(write(tmp_path, table))
    assert any(f"exceed 1 by at most {above}" in note for note in read.notes)
    assert (
        np.allclose([distribution.sum() for distribution in read.frame["distribution"]], 1)
        and (read.frame["mass"] == 1).all()
    )


def test_what_rounding_cannot_do_is_not_normalised(tmp_path):
    table = [row | {"probability": 0.51} for row in rows()]
    assert "sum to 1.02, above 1" in str(refusal(write(tmp_path, table)))
    table[0]["probability"], table[1]["probability"] = 1.02, 0
    assert "is above 1" in str(refusal(write(tmp_path, table)))


def test_a_rounded_mass_is_normalised_too(tmp_path):
    path = write(tmp_path, [row | {"probability": 0.4985, "mass": 1.004} for row in rows()])
    assert (read_table(path).frame["mass"] == 1).all()


# -- what cannot be judged


def test_too_few_draws_everywhere_is_a_sentence(tmp_path, capsys):
    path = write(tmp_path, [row | {"count": 1} for row in rows(counts=True)])
    for more in ([], ["--json"]):
        assert main(["phases", str(path), *more]) == 2
        assert "no prompt of the ladder 'L' has 4 or more draws" in capsys.readouterr().err
    table = [row | {"count": 1 if row["prompt"] == "p1" else 20} for row in rows(counts=True)]
    notes = read_table(write(tmp_path, table)).notes
    assert any("fewer than 4 draws" in note and "L t 1" in note for note in notes)


def test_stages_without_a_common_option_are_refused(tmp_path):
    table = rows()
    for row in table[6:]:
        row["option"] = {"a": "c", "b": "d"}[row["option"]]
    assert "sft lists no option of base (c, d; a, b)" in str(refusal(write(tmp_path, table)))
    for row in table:  # of our own task, whose options are known
        row["task"], row["option"] = "digit", str("abcd".index(row["option"]))
    assert len(read_table(write(tmp_path, table)).options["digit"]) == 10


def test_a_ladder_without_a_task_to_compare_is_refused(tmp_path):
    table = [row | {"task": row["stage"]} for row in rows()]
    assert "no task at base and at a later stage" in str(refusal(write(tmp_path, table)))


def test_digits_that_pandas_wrote_are_our_digits(tmp_path):
    table = rows(counts=True, options=tuple(f"{digit}.0" for digit in range(10)), task="digit")
    assert read_table(write(tmp_path, table)).options["digit"] == tuple("0123456789")


# -- files


def test_lines_that_end_as_on_an_old_mac_are_read(tmp_path):
    path = write(tmp_path, rows())
    wanted = read_table(path).notes
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert read_table(path).notes == wanted
    (tmp_path / "r.csv").write_bytes(b"reply,prompt\r7,p1\r3,p1\r")
    assert (
        tally("replies", [tmp_path / "r.csv"], Asked(ladder="a", stage="b", task="digit"))
        .table()["count"]
        .sum()
        == 2
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"option": "a", "option": "b"}', "given twice"),
        (b"[" * 100_000, "broken JSON"),
        (b'{"option": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "broken JSON"),
        (b'{"count": 1_000}', "broken JSON"),
    ],
)
def test_json_is_read_strictly(line, said, tmp_path):
    path = write(tmp_path, rows()[:2], "x.jsonl")
    path.write_bytes(path.read_bytes() + line + b"\n")
    assert said in str(refusal(path))


def test_a_list_within_lists_is_no_name_and_no_number(tmp_path):
    deep: list = []
    for _ in range(300):
        deep = [deep]
    table = rows(counts=True)
    table[1]["option"] = deep
    assert "a list or an object" in str(refusal(write(tmp_path, table, "x.jsonl")))
    table[1] |= {"option": "b", "count": deep}
    assert "is not a number" in str(refusal(write(tmp_path, table, "x.jsonl")))


def test_damaged_parquet_is_a_table_or_a_sentence(tmp_path):
    whole = fuzz.packed(rows(counts=True), ".parquet")
    path, refused = tmp_path / "x.parquet", 0
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_table(path)
        except CrystalError as error:
            refused += 1
            assert "\n" not in str(error) and error.hint
    assert refused > 20


def bomb(path: Path) -> Path:
    """A small file of 3 MB unpacked: one long name in every row, which is written once."""
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 3000), pa.array(["y" * 1000]))
    pq.write_table(pa.table({"reply": names, "prompt": ["p"] * 3000}), path)
    assert path.stat().st_size < 50_000
    return path


@pytest.mark.parametrize("words", ["phases", "import replies"])
def test_what_unpacks_without_end_is_refused(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheets, "LARGEST", 1 << 20)
    monkeypatch.setattr(sheets.check_size, "__defaults__", (1 << 20,))
    more = ["--out", str(tmp_path / "o.csv"), "--ladder", "a", "--stage", "b", "--task", "digit"]
    assert (
        main(
            [
                *words.split(),
                str(bomb(tmp_path / "x.parquet")),
                *(more if "import" in words else []),
            ]
        )
        == 2
    )
    assert "unpacks to more than 1 MiB" in capsys.readouterr().err


def test_columns_without_end_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text(",".join(f"c{i}" for i in range(2000)) + "\n" + "a\n" * 9)
    assert "more than 1000 columns" in str(refusal(tmp_path / "x.csv"))
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({f"c{i}": 1}) + "\n" for i in range(2000)))
    assert "more than 1000 columns" in str(refusal(tmp_path / "x.jsonl"))


# -- logs


def imported(path: Path, format: str, capsys, *more: str) -> str:
    """What the command says: its sentence if it refuses, else what was read."""
    out = path.parent / "out.csv"
    status = main(
        ["import", format, str(path), "--out", str(out), "--ladder", "a", "--stage", "base", *more]
    )
    said, err = capsys.readouterr()
    assert status in (0, 2) and out.exists() == (status == 0)
    assert status == 0 or re.fullmatch(r"crystal import: [^\n]+ Hint: [^\n]+\n", err)
    return said + err


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("reply", ["42.0", 42.0, "42"])
def test_replies_of_floats_are_whole_numbers(kind, reply, tmp_path, capsys):
    path = write(tmp_path, [{"prompt": "p", "reply": reply}] * 4, f"r{kind}")
    assert "100.0% read as an option" in imported(path, "replies", capsys, "--task", "hundred")


def test_nothing_read_as_an_option_is_an_error(tmp_path, capsys):
    table = [
        {"prompt": "p", "task": task, "reply": reply}
        for task, reply in [
            ("coin", "heads"),
            ("digit", "x"),
            ("digit", "x"),
            ("digit", "y\x1b"),
            ("die", "99"),
            ("die", ""),
        ]
    ]
    said = imported(write(tmp_path, table, "r.jsonl"), "replies", capsys)
    assert (
        r"nothing was read as an option of digit: 'x' (2), 'y\x1b' (1); die: '99' (1)" in said
        and "coin" not in said
    )


BATCH = {
    "custom_id": "p",
    "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "7"}}]}},
}
OUTPUT = {
    "status_code": 200,
    "body": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "7"}]}]},
}
SAMPLE = {
    "doc_id": 0,
    "filter": "none",
    "arguments": {"g": {"a": "?", "b": {"until": []}}},
    "resps": [["7"]],
    "doc": {},
}
SCORED = {
    "doc_id": 0,
    "filter": "none",
    "doc": {},
    "resps": [[[-1.0, False]], [[-1.0, False]]],
    "arguments": [["?", "heads"], ["?", "tails"]],
}
LOG = {
    "eval": {"task": "digit", "model_generate_config": {}},
    "plan": {"config": {}},
    "samples": [
        {
            "id": 1,
            "epoch": 1,
            "metadata": {},
            "uuid": "u",
            "attachments": {},
            "output": {
                "choices": [
                    {"message": {"content": [{"type": "text", "text": "7"}]}, "stop_reason": "stop"}
                ]
            },
        }
    ],
}
WRONG = [5, 7.5, True, None, "x", "", [], [5], [[5]], {}, {"a": 5}, "\ud800", 10**400, [None], [{}]]


@pytest.mark.parametrize(
    ("format", "record", "name"),
    [
        ("openai-batch", BATCH, "b.jsonl"),
        ("openai-batch", BATCH | {"response": OUTPUT}, "b.jsonl"),
        ("lm-eval", SAMPLE, "s.jsonl"),
        ("lm-eval", SCORED, "s.jsonl"),
        ("inspect", LOG, "l.json"),
        (
            "replies",
            {"prompt": "p", "reply": "7", "unit": "u", "ladder": "a", "stage": "base"},
            "r.jsonl",
        ),
    ],
)
def test_a_field_of_any_type_is_read_or_a_sentence(format, record, name, tmp_path, capsys):
    task = "coin" if record is SCORED else "digit"
    (tmp_path / name).write_text(json.dumps(record) + "\n")
    assert " rows written" in imported(tmp_path / name, format, capsys, "--task", task)
    for where in list(fuzz.paths(record))[1:]:
        for wrong in WRONG:
            value = json.loads(json.dumps(record))
            inner = value
            for key in where[:-1]:
                inner = inner[key]
            inner[where[-1]] = wrong
            (tmp_path / name).write_text(json.dumps(value) + "\n")
            (tmp_path / "out.csv").unlink(missing_ok=True)
            imported(tmp_path / name, format, capsys, "--task", task)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--task mine --options 1_000,2", "would not be read as itself"),
        ("--task mine --options e\u0301,\u00e9", "two or more"),
        ("--task mine --options a\x1b,b", "control character"),
        ("--ladder a\u202eb", "control character"),
        ("--out no/such/t.csv", "no such folder.*mkdir -p no/such"),
        ("--out t.txt", "ending of a table"),
        ("--out . --append", "ending of a table"),
        ("--unit-from nobody", "no nobody"),
    ],
)
def test_bad_arguments_of_import_are_sentences(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, [{"prompt": "p", "reply": "7"}], "r.csv")
    more = [
        "import",
        "replies",
        "r.csv",
        "--out",
        "out.csv",
        "--ladder",
        "a",
        "--stage",
        "base",
        "--task",
        "digit",
    ]
    assert main([*more, *words.split(" ")]) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--permutations 18", "18 permutations"),
        ("--permutations -5", "not a whole number"),
        ("--permutations 10000000", "10000000 permutations"),
        ("--permutations 1_000", "not a whole number"),
        ("--permutations 99.5", "not a whole number"),
        ("--seed -1", "not a whole number"),
        ("--seed \u0664", "not a whole"),
        ("--seed nan", "not a whole"),
        ("--quantile nan", "not a number above 0"),
        ("--quantile 0", "not a number above 0"),
        ("--quantile 1e400", "not a number above 0"),
        ("--stages base", "not of the form"),
        ("--stages =", "not of the form"),
        ("--stages base=a,base=b", "says one twice"),
        ("--stages base=base,sft=base", "says one twice"),
        ("--stages base=x", "unknown stage"),
        ("--stages bas=base", "unknown stage"),
        ("--ladder M", "unknown ladder"),
    ],
)
def test_bad_arguments_of_phases_are_sentences(words, said, tmp_path, capsys):
    assert main(["phases", str(write(tmp_path, rows())), *words.split(" ")]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_negative_seed_is_refused_in_python_too(tmp_path):
    for how in ({"seed": -1}, {"permutations": 3}, {"quantile": float("nan")}):
        with pytest.raises(CrystalError):
            survey.survey(read_table(write(tmp_path, rows())), "L", **how)


# -- many prompts


def large(prompts: int, draws: float = np.inf) -> ev.Evidence:
    rng = np.random.default_rng(prompts)
    distribution = rng.dirichlet(np.ones(4), prompts)
    distribution = distribution if np.isinf(draws) else rng.multinomial(draws, distribution) / draws
    return ev.asked(distribution, np.arange(prompts) // 2, np.full(prompts, draws))


@pytest.mark.parametrize("draws", [np.inf, 30])
def test_weights_never_written_out_give_the_same_numbers(draws, monkeypatch):
    first = large(40, draws)
    statistics = [
        lambda w: ev.liquidity(first, w),
        lambda w: ev.spread(first, w),
        lambda w: ph.mean_distribution(first.distribution, w)[..., 0],
    ]
    whole = inf.leave_one_out(first.clusters)
    monkeypatch.setattr(inf, "DENSE", 0)
    lean = inf.leave_one_out(first.clusters)
    assert isinstance(lean, inf.LeftOut)
    assert np.array_equal(lean @ np.eye(40), whole)
    for statistic in statistics:
        assert np.allclose(statistic(lean), statistic(whole), rtol=1e-10, atol=1e-14)


def test_the_memory_of_an_interval_grows_with_the_prompts():
    many = large(20_000)
    tracemalloc.start()
    found = inf.estimate(lambda w: ev.spread(many, w), inf.leave_one_out(many.clusters))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.low < found.value < found.high and peak < 50 * 2**20  # the whole matrix: 1,600 MB


def test_nulls_in_parts_are_the_nulls_at_once(monkeypatch):
    first = large(30)
    twice = np.vstack([first.distribution, first.distribution[::-1]])

    def move(one, two):
        return ph.mse(ph.mean_distribution(twice, one), ph.mean_distribution(twice, two))

    def nulls():
        return [
            inf.cluster_null(first.distribution, first.clusters, first.block, permutations=99),
            inf.swap_null("s", move, first.clusters, permutations=99),
        ]

    at_once = nulls()
    monkeypatch.setattr(inf.parts, "__defaults__", (500,))
    for one, two in zip(at_once, nulls(), strict=True):
        assert np.allclose(one.draws, two.draws, atol=1e-15) and one.p == two.p


def test_more_relabellings_than_memory_holds_are_refused():
    with pytest.raises(CrystalError, match="too many to hold"):
        inf.relabellings(10**7, 999, 0)


def test_a_ratio_to_nothing_is_said_without_inf():
    said = claims.judge("collapse", inf.exactly(np.inf)).sentence()
    assert "∞" in said and "inf" not in said


# -- mutated inputs


@pytest.mark.parametrize("kind", fuzz.CASES)
def test_mutated_inputs_end_in_numbers_or_a_sentence(kind):
    """More of them: python tests/fuzz.py."""
    assert list(fuzz.findings(kind, range(80), seed=7)) == []


def test_a_finding_of_the_fuzzer_is_told(monkeypatch, tmp_path):
    """It would notice a crash, an exception and a number that is none."""
    given = fuzz.Case("x.csv", fuzz.packed(rows(), ".csv"), ("phases", "FILE", "--json"))
    assert fuzz.complaint(given, tmp_path) is None
    for wrong, said in (
        (lambda _: print('{"a": NaN}'), "Error"),
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: print(io.StringIO) or 3, "exit 3"),
    ):
        monkeypatch.setattr("crystal.cli.main", lambda words, wrong=wrong: wrong(words) or 0)
        assert said in fuzz.complaint(given, tmp_path)
