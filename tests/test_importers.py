"""Known replies, in each tool's own file, are counted as if read directly; else a sentence."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystal import texts
from crystal.ask.tasks import TASKS, read
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.tables import foreign, importers, sheets
from crystal.tables.foreign import Named
from crystal.tables.importers import Asked, save, tally

FORMATS = Path(__file__).parent / "formats"
DIGIT = TASKS["digit"]


def log(task: str) -> Path:
    (path,) = FORMATS.glob(f"samples_{task}_*.jsonl")
    return path


def constant(script: str, name: str) -> dict:
    """A literal of the script that made a file: what the tool was given to log."""
    tree = ast.parse((FORMATS / script).read_text(encoding="utf-8"))
    return ast.literal_eval(
        next(
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].id == name
        )
    )


def directly(replies: list[str | None], task=DIGIT) -> dict[str, int]:
    """What an importer must find: the task's rule over each reply; no text is no option."""
    counts = Counter(read(texts.whole(reply or ""), task) or "" for reply in replies)
    return {option: counts[option] for option in (*task.options, "")}


def counted(
    format: str, *paths: Path, prompt: str | None = None, **more
) -> dict[str, dict[str, float]]:
    """Prompt -> option -> count or probability."""
    asked = Asked(**{"ladder": "toy", "stage": "base", "named": Named(prompt)} | more)
    table = tally(format, paths, asked).table()
    return {
        name: dict(zip(rows["option"], rows.iloc[:, -1], strict=True))
        for name, rows in table.groupby("prompt", sort=False)
    }


def sentence(capsys, *arguments: str) -> str:
    """Exit status 2, one line on stderr that says how to mend it, nothing on stdout."""
    assert main(["import", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.count("\n") == 1
        and err.startswith("crystal import: ")
        and " Mend: " in err
    )
    return err


# -- what the tools write


def test_lm_eval_replies_are_the_raw_repeats_once():
    given = constant("make_lm_eval.py", "REPLIES")
    assert counted("lm-eval", log("digit"), prompt="narrator") == {
        name: directly(replies) for name, replies in given.items()
    }
    assert list(counted("lm-eval", log("digit"))) == ["0", "1"]  # doc_id


def test_lm_eval_scores_are_probabilities_and_the_rest():
    given = constant("make_lm_eval.py", "SCORES")
    found = counted("lm-eval", log("coin"), prompt="narrator")
    for name in ("clerk", "mathematician"):
        law = {option: given[name, f" {option}"] for option in ("heads", "tails")}
        assert found[name] == pytest.approx(law | {"": 1 - sum(law.values())}, abs=1e-12)
    assert counted("lm-eval", log("scored"), prompt="narrator", task="coin")[
        "clerk"
    ] == pytest.approx(found["clerk"])


INSPECT = {
    "clerk": ["7", " Seven, of course.", "3", "I would rather not say.", "7\n", "8"],
    "mathematician": ["**4**", "3. That is my answer", "42", None],
}


@pytest.mark.parametrize(("name", "last"), [("digit.eval", ["Café 7"]), ("digit.json", [])])
def test_inspect_replies(name, last):
    wanted = INSPECT | {"mathematician": INSPECT["mathematician"] + last}
    assert counted("inspect", FORMATS / name, prompt="narrator") == {
        who: directly(said) for who, said in wanted.items()
    }
    assert set(counted("inspect", FORMATS / name)) == {"clerk", "2"}  # sample ids


def test_inspect_archives_are_zstd_and_a_log_cut_short_is_read(tmp_path):
    """What inspect_ai really writes; and an archive of plain members."""
    with zipfile.ZipFile(FORMATS / "digit.eval") as archive:
        assert {info.compress_type for info in archive.infolist()} == {foreign.ZSTD}
    plain = tmp_path / "plain.eval"
    with (
        zipfile.ZipFile(FORMATS / "digit.eval") as archive,
        zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as copy,
    ):
        for info in archive.infolist():
            if info.filename.startswith("samples/") or info.filename == "_journal/start.json":
                packed = foreign._packed(archive, info).read()
                data = pa.decompress(packed, info.file_size, "zstd", asbytes=True)
                copy.writestr(info.filename, data)
    assert counted("inspect", plain) == counted("inspect", FORMATS / "digit.eval")


PATTERN = r"(.*)-\d+"


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [("chat", "CHAT"), ("completions", "COMPLETIONS"), ("responses", "RESPONSES")],
)
def test_openai_replies(endpoint, name):
    wanted: dict[str, list] = {}
    for custom_id, said in constant("make_openai_batch.py", name).items():
        wanted.setdefault(custom_id.partition("-")[0], []).extend(
            said if isinstance(said, list) else [said]
        )
    path = FORMATS / f"batch_{endpoint}.jsonl"
    assert counted("openai-batch", path, prompt=PATTERN, task="digit") == {
        who: directly(said) for who, said in wanted.items()
    }
    assert set(counted("openai-batch", path, task="digit")) == set(
        constant("make_openai_batch.py", name)
    )


ODD = [*DIGIT.options, "seven", " 7.", "17", "NA", "None", "null", "1,5", '"', "a\rb", "\u2028"]
TEXTS = st.one_of(
    st.none(), st.sampled_from(ODD), st.text(st.characters(codec="utf-8"), max_size=6)
)
NAMES = (
    st.text(st.characters(codec="utf-8").filter(lambda c: not texts.HOSTILE.match(c)), max_size=4)
    .map(texts.name)
    .filter(bool)
)


@given(
    replies=st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=12),
    kind=st.sampled_from(importers.SUFFIXES),
    out=st.sampled_from(importers.SUFFIXES),
)
def test_plain_replies_come_back_whatever_they_hold(tmp_path_factory, replies, kind, out):
    """Round trip through a file of replies, and through the table it becomes, of every kind."""
    folder = tmp_path_factory.mktemp("replies")
    path = folder / f"replies{kind}"
    records = [{"prompt": prompt, "reply": reply} for prompt, reply in replies]
    path.write_bytes(importers._bytes([*records, {"prompt": "7", "reply": "7"}], path))
    wanted: dict[str, list] = {}
    for prompt, reply in [*replies, ("7", "7")]:
        wanted.setdefault(prompt, []).append(reply)
    found = tally("replies", [path], Asked(ladder="toy", stage="base", task="digit"))
    save(found.table(), folder / f"table{out}")
    back: dict[str, dict] = {}
    for _, cells in sheets.rows(folder / f"table{out}"):
        back.setdefault(cells["prompt"], {})[cells["option"]] = int(cells["count"])
    assert back == {prompt: directly(said) for prompt, said in wanted.items()}


def test_replies_may_say_everything_themselves(tmp_path):
    path = tmp_path / "replies.csv"
    path.write_text(
        "\ufeffladder,stage,task,prompt,unit,reply,spare\n"
        "toy,sft,coin,p1,clerk,heads,\ntoy,sft,die,p1,clerk,6,x\n"
    )
    table = tally("replies", [path], Asked()).table()
    assert list(table.columns) == ["ladder", "stage", "task", "prompt", "unit", "option", "count"]
    assert set(
        zip(*(table[name] for name in ("ladder", "stage", "task", "prompt", "unit")), strict=True)
    ) == {("toy", "sft", "coin", "p1", "clerk"), ("toy", "sft", "die", "p1", "clerk")}
    assert (
        table[table["count"] == 1]["option"].tolist() == ["heads", "6"]
        and table["count"].sum() == 2
    )


def test_numbers_are_replies_and_names_in_parquet(tmp_path):
    path = tmp_path / "replies.parquet"
    pq.write_table(pa.table({"reply": [7, 7, None], "prompt": [1, 1, 1]}), path)
    assert counted("replies", path, task="digit") == {"1": directly(["7", "7", None])}


def test_a_task_of_ones_own():
    found = counted(
        "lm-eval",
        log("digit"),
        prompt="narrator",
        task="mine",
        options=("7", "four", "rather", "never"),
    )
    assert list(found["clerk"].items()) == [
        ("7", 2),
        ("four", 0),
        ("rather", 0),
        ("never", 0),
        ("", 3),
    ]


# -- the command


def test_the_command_tells_what_it_read(tmp_path, capsys):
    out = tmp_path / "table.csv"
    common = ["--out", str(out), "--ladder", "toy", "--prompt-from", "narrator"]
    assert (
        main(
            [
                "import",
                "inspect",
                str(FORMATS / "digit.json"),
                "--stage",
                "base",
                "--unit-from",
                "narrator",
                *common,
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    for part in (
        "22 rows written\n",
        "2 prompts, 10 draws, 70.0% read as an option",
        "empty replies, counted as none of the options: 1",
        "read as no option, most often: '42' (1), 'I would rather not say.' (1)\n",
        "failed requests, left out: 1, first",
        "the server is gone",
        "decoding as logged: temperature 1.0\n",
    ):
        assert part in said
    before = out.read_text()
    assert (
        main(
            [
                "import",
                "lm-eval",
                str(log("digit")),
                "--stage",
                "sft",
                "--unit-from",
                "narrator",
                "--append",
                *common,
            ]
        )
        == 0
    )
    assert "22 rows written, 44 in all" in capsys.readouterr().out
    table = pd.read_csv(out, keep_default_na=False)
    assert out.read_text().startswith(before) and table.groupby("stage")[
        "count"
    ].sum().to_dict() == {"base": 10, "sft": 10}
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_reply_cut_behind_its_option_is_told(tmp_path):
    """`1` may be all there was room for of `17`; `1.` and a reply that ended are whole."""
    texts = [("1", "length"), ("one", "length"), ("1.", "length"), ("1", "stop"), ("no", "length")]
    body = {
        "choices": [
            {"message": {"content": text}, "finish_reason": reason} for text, reason in texts
        ]
    }
    (tmp_path / "b.jsonl").write_bytes(
        lines(BATCH | {"response": {"status_code": 200, "body": body}})
    )
    found = tally(
        "openai-batch", [tmp_path / "b.jsonl"], Asked(ladder="a", stage="base", task="digit")
    )
    assert found.cut == 2 and "longer answer may begin with: 2" in "\n".join(found.told())


def test_a_greedy_log_is_told(tmp_path, capsys):
    assert (
        main(
            [
                "import",
                "lm-eval",
                str(log("greedy_digit")),
                "--task",
                "digit",
                "--ladder",
                "a",
                "--stage",
                "base",
                "--out",
                str(tmp_path / "t.csv"),
            ]
        )
        == 0
    )
    assert "this is greedy" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", importers.SUFFIXES)
def test_appending_keeps_the_table_and_refuses_the_same_prompt(suffix, tmp_path, capsys):
    out = tmp_path / f"table{suffix}"
    arguments = ["inspect", str(FORMATS / "digit.eval"), "--out", str(out), "--ladder", "toy"]
    assert main(["import", *arguments, "--stage", "base"]) == 0
    capsys.readouterr()
    before = out.read_bytes()
    assert "is there already" in sentence(capsys, *arguments, "--stage", "sft")
    assert "2 prompts are in the table already, first toy, base, digit, clerk" in sentence(
        capsys, *arguments, "--stage", "base", "--append"
    )
    assert "the columns ladder, stage, task, prompt, option, count, not" in sentence(
        capsys,
        "lm-eval",
        str(log("coin")),
        "--out",
        str(out),
        "--ladder",
        "toy",
        "--stage",
        "base",
        "--append",
    )
    assert out.read_bytes() == before
    assert main(["import", *arguments, "--stage", "sft", "--append"]) == 0
    rows = [cells for _, cells in sheets.rows(out)]
    assert [(cells["stage"], cells["option"]) for cells in rows] == [
        (stage, option)
        for stage in ("base", "sft")
        for _ in range(2)
        for option in (*DIGIT.options, "")
    ]


def test_a_disk_that_refuses_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "table.csv"
    table = tally("inspect", [FORMATS / "digit.eval"], Asked(ladder="toy", stage="base")).table()
    save(table, out)
    before = out.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CrystalError, match="No space left on device"):
        save(table.assign(stage="sft"), out, append=True)
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


# -- bad input


def lines(*records: dict | bytes) -> bytes:
    return b"".join(
        (record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n"
        for record in records
    )


def refused(
    tmp_path, capsys, name: str, content: bytes, said: str, format: str, *more: str
) -> None:
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "table.csv"
    found = sentence(
        capsys,
        format,
        str(tmp_path / name),
        "--out",
        str(out),
        "--ladder",
        "toy",
        "--stage",
        "base",
        *more,
    )
    assert re.search(said, found), found
    assert not out.exists()


BATCH = {
    "id": "b",
    "custom_id": "p-1",
    "response": {"status_code": 200, "body": {"choices": [{"text": "7"}]}},
    "error": None,
}


@pytest.mark.parametrize(
    ("format", "content", "said"),
    [
        (
            "inspect",
            lines(BATCH),
            "it is the output of an OpenAI batch.*crystal import openai-batch",
        ),
        ("lm-eval", b"PK\3\4", "it is a zip archive.*crystal import inspect"),
        ("lm-eval", b"PAR1", "it is a parquet file.*crystal import replies"),
        ("lm-eval", b"\x1f\x8b\1", "gunzip"),
        ("replies", "reply,prompt\n7,a\n".encode("utf-16"), "iconv"),
        (
            "openai-batch",
            lines({"custom_id": "a", "method": "POST", "body": {}}),
            "input of an OpenAI batch",
        ),
        (
            "lm-eval",
            json.dumps({"results": {}, "configs": {}}, indent=1).encode(),
            r"the samples_\*.jsonl beside it",
        ),
        ("replies", b"ladder,stage,task,prompt,option,count\n", "a table of counts already"),
        ("replies", b"7;a\n8;b\n", "text that begins '7;a'"),
        ("openai-batch", lines({"custom_id": "a", "result": {}}), "keys custom_id, result"),
        ("openai-batch", b"\n \n", "it is empty"),
        ("openai-batch", b'{"id": \n', "no line of JSON, nor JSON as a whole: broken JSON"),
        (
            "inspect",
            lines({"eval": {"task": "digit"}, "plan": {}}),
            "a log of inspect_ai without samples",
        ),
        ("inspect", lines({"eval": {"task": "digit"}, "samples": []}), "there is no sample"),
        ("lm-evaluation", lines(BATCH), "unknown format 'lm-evaluation', did you mean 'lm-eval'"),
    ],
)
def test_another_format_is_named(format, content, said, tmp_path, capsys):
    refused(tmp_path, capsys, "file", content, said, format)


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (lines(BATCH, b'{"id": '), "--task digit", "broken JSON.*line 2"),
        (lines(BATCH, b"[7]"), "--task digit", "no object.*line 2"),
        (lines(BATCH, b"[" * 200_000), "--task digit", "broken JSON.*line 2"),
        (lines(BATCH, b'{"custom_id": "caf\xe9"}'), "--task digit", "UTF-8.*line 2.*iconv"),
        (lines(BATCH, BATCH), "--task digit", "is there twice, first in .*line 1.*line 2"),
        (
            lines(BATCH | {"response": {"status_code": 200, "body": {"data": []}}}),
            "--task digit",
            "neither choices nor output",
        ),
        (
            lines(BATCH | {"response": None, "error": {"message": "gone"}}),
            "--task digit",
            "all requests failed: 1, .*gone",
        ),
        (lines(BATCH | {"custom_id": "\ud800"}), "--task digit", "half a character"),
        (lines(BATCH), "", "does not say of which task.*--options"),
        (lines(BATCH), "--task digits", "did you mean 'digit'.*--options"),
        (lines(BATCH), "--task city", "has no list of options.*--task my_city"),
        (lines(BATCH), "--task digit --options 1,2", "has options of its own"),
        (lines(BATCH), "--options 1,2", "options without a task"),
        (lines(BATCH), "--task mine --options a,A", "two or more different"),
        (lines(BATCH), "--task mine --options a,(a", r"'\(a' would not be read as itself"),
        (lines(BATCH), "--task digit --prompt-from p.*", "has 0 groups"),
        (lines(BATCH), "--task digit --prompt-from (p", "not a regular expression"),
        (lines(BATCH), "--task digit --prompt-from (q).*", "finds nothing in custom_id 'p-1'"),
        (lines(BATCH), "--task digit --out table.txt", "unknown ending of a table '.txt'"),
        (lines(BATCH), "--task digit --out no/such/table.csv", "could not be written"),
    ],
)
def test_bad_batches(content, more, said, tmp_path, capsys):
    refused(tmp_path, capsys, "batch.jsonl", content, said, "openai-batch", *more.split())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("reply,prompt\n7,a\n7,b,c\n", "has 3 cells, the header 2.*row 3"),
        ('reply,prompt\n"7"x,a\n', "not CSV.*row 2"),
        ("reply,Prompt\n7,a\n", "no prompt.*choose another field among: reply, Prompt"),
        ("reply,prompt\n7,\n", "prompt is ''.*row 2"),
        ('reply,prompt\n"",a\n" ",a\n', "every reply is empty, 2 of them"),
        ("reply,prompt\n", "there is no sample"),
        ('{"reply": 7.5, "prompt": "a"}\n', "a reply is 7.5, not text.*row 1"),
        (
            '{"reply": "7", "prompt": "a"}\n{"answer": "7", "prompt": "a"}\n',
            "no reply among answer, prompt.*row 2",
        ),
        ("reply,prompt,unit\n7,a,u\n7,a,v\n", "of unit 'u' and of 'v'.*row 3"),
        ("reply,prompt,task\n7,a,die\n", "answers to the task die, not digit.*row 2"),
        ("reply,prompt,task\n7,a,x\n7,a,y\n", "the tasks x and y.*row 3"),
        ("reply,prompt,stage\n7,a,sft\n", "the stage is sft in the file, but --stage is base"),
    ],
)
def test_bad_tables_of_replies(content, said, tmp_path, capsys):
    refused(tmp_path, capsys, "replies", content.encode(), said, "replies", "--task", "digit")


def scored(*pairs: tuple[str, float | str], **more) -> dict:
    return {
        "doc_id": 0,
        "filter": "none",
        "resps": [[[str(score), "False"]] for _, score in pairs],
        "arguments": {
            f"gen_args_{i}": {"arg_0": "?", "arg_1": text} for i, (text, _) in enumerate(pairs)
        },
    } | more


COIN = scored(("heads", -1), ("tails", -1))


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (lines(COIN), "--prompt-from narrator", "no narrator"),
        (lines(COIN, COIN), "", "document 0 is there twice.*line 2"),
        (
            lines(scored(("heads", 0), arguments={"gen_args_0": {"arg_0": "?"}})),
            "",
            "scores whole texts",
        ),
        (lines(COIN | {"resps": "7"}), "", "not those of a sample"),
        (lines(scored(("heads", "x"))), "", "is not a log-likelihood"),
        (lines(scored(("heads", "nan"))), "", "nan is no log-likelihood"),
        (lines(scored(("heads", 0.1))), "", "0.1 is no log-likelihood"),
        (lines(scored(("heads", -1), ("heads", -1))), "", "'heads' is scored twice"),
        (lines(scored(("heads", -0.1), ("tails", -0.2))), "", "the scores sum to 1.72357"),
        (lines(scored(("heads", -1))), "", "1 of 2 options have no score, first tails"),
        (
            lines(
                COIN,
                COIN
                | {
                    "doc_id": 1,
                    "arguments": {"a": {"arg_0": "?", "arg_1": {}}},
                    "resps": [["heads"]],
                },
            ),
            "",
            "replies and option scores.*line 2",
        ),
    ],
)
def test_bad_samples(content, more, said, tmp_path, capsys):
    refused(
        tmp_path, capsys, "samples.jsonl", content, said, "lm-eval", "--task", "coin", *more.split()
    )


def test_any_damage_to_an_archive_is_a_sentence(tmp_path):
    """A byte flipped, more densely in the list of members: a sentence, or the same counts."""
    whole = (FORMATS / "digit.eval").read_bytes()
    wanted, path, refusals = counted("inspect", FORMATS / "digit.eval"), tmp_path / "digit.eval", 0
    for place in [*range(0, 19_000, 389), *range(19_000, len(whole), 7)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert counted("inspect", path) == wanted
        except CrystalError as error:
            refusals += 1
            assert error.mend
    assert refusals > 100
    path.write_bytes(whole[:-200])
    with pytest.raises(CrystalError, match="not a whole zip archive"):
        counted("inspect", path)


def test_the_same_log_twice_is_refused(tmp_path):
    (tmp_path / "copy.eval").write_bytes((FORMATS / "digit.eval").read_bytes())
    with pytest.raises(CrystalError, match="this reply is there twice"):
        counted("inspect", FORMATS / "digit.eval", tmp_path / "copy.eval")
    with pytest.raises(CrystalError, match="a file is named twice"):
        counted("inspect", FORMATS / "digit.eval", FORMATS / "digit.eval")
    with pytest.raises(CrystalError, match="cannot be read: No such file"):
        counted("inspect", tmp_path / "none.eval")
