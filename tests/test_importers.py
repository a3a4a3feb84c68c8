"""Known replies, in each tool's own file, are counted as if read directly; else a sentence."""

from __future__ import annotations

import ast
import json
import re
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
from crystal.tables import importers, sheets
from crystal.tables.foreign import Asked
from crystal.tables.importers import save, tally

FORMATS = Path(__file__).parent / "formats"
DIGIT = TASKS["digit"]


def log(task: str) -> Path:
    (path,) = FORMATS.glob(f"samples_{task}_*.jsonl")
    return path


def constant(script: str, name: str) -> dict:
    """A literal of the script that made a file: what the tool was given to log."""
    body = ast.parse((FORMATS / script).read_text(encoding="utf-8")).body
    given = (node for node in body if isinstance(node, ast.Assign))
    return ast.literal_eval(next(node.value for node in given if node.targets[0].id == name))


def directly(replies: list[str | None], task=DIGIT) -> dict[str, int]:
    """What an importer must find: the task's rule over each reply; no text is no option."""
    counts = Counter(read(texts.whole(reply or ""), task) or "" for reply in replies)
    return {option: counts[option] for option in (*task.options, "")}


def counted(format: str, *paths: Path, prompt: str | None = None, **more) -> dict[str, dict]:
    """Prompt -> option -> count or probability."""
    asked = Asked(**{"ladder": "toy", "stage": "base", "prompt_from": prompt} | more)
    table = tally(format, paths, asked).table()
    return {
        name: dict(zip(rows["option"], rows.iloc[:, -1], strict=True))
        for name, rows in table.groupby("prompt", sort=False)
    }


def imported(capsys, words: str, *more: object) -> str:
    """What the command says where it succeeds."""
    assert main(["import", *words.split(), *map(str, more)]) == 0
    return capsys.readouterr().out


def sentence(capsys, words: str, *more: object) -> str:
    """Exit status 2, one line on stderr that says how to hint it, nothing on stdout."""
    assert main(["import", *words.split(), *map(str, more)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"crystal import: [^\n]+ Hint: [^\n]+\n", err)
    return err


# -- what the tools write


def test_lm_eval_replies_are_the_raw_repeats_once():
    given = constant("make_lm_eval.py", "REPLIES")
    wanted = {name: directly(replies) for name, replies in given.items()}
    assert counted("lm-eval", log("digit"), prompt="narrator") == wanted
    assert list(counted("lm-eval", log("digit"))) == ["0", "1"]  # doc_id


def test_lm_eval_scores_are_probabilities_and_the_rest():
    given = constant("make_lm_eval.py", "SCORES")
    found = counted("lm-eval", log("coin"), prompt="narrator")
    for name in ("clerk", "mathematician"):
        distribution = {option: given[name, f" {option}"] for option in ("heads", "tails")}
        assert found[name] == pytest.approx(
            distribution | {"": 1 - sum(distribution.values())}, abs=1e-12
        )
    scored = counted("lm-eval", log("scored"), prompt="narrator", task="coin")
    assert scored["clerk"] == pytest.approx(found["clerk"])


INSPECT = {
    "clerk": ["7", " Seven, of course.", "3", "I would rather not say.", "7\n", "8"],
    "mathematician": ["**4**", "3. That is my answer", "42", None],
}


def test_inspect_replies():
    wanted = {who: directly(said) for who, said in INSPECT.items()}
    assert counted("inspect", FORMATS / "digit.json", prompt="narrator") == wanted
    assert set(counted("inspect", FORMATS / "digit.json")) == {"clerk", "2"}  # sample ids


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_openai_replies(endpoint):
    given = constant("make_openai_batch.py", endpoint.upper())
    wanted: dict[str, list] = {}
    for custom_id, said in given.items():
        replies = said if isinstance(said, list) else [said]
        wanted.setdefault(custom_id.partition("-")[0], []).extend(replies)
    path, wanted = FORMATS / f"batch_{endpoint}.jsonl", {k: directly(v) for k, v in wanted.items()}
    assert counted("openai-batch", path, prompt=r"(.*)-\d+", task="digit") == wanted
    assert counted("openai-batch", path, task="digit").keys() == given.keys()


ODD = [*DIGIT.options, "seven", " 7.", "17", "NA", "None", "null", "1,5", '"', "a\rb", "\u2028"]
LETTERS = st.characters(codec="utf-8")
TEXTS = st.one_of(st.none(), st.sampled_from(ODD), st.text(LETTERS, max_size=6))
TAME = LETTERS.filter(lambda c: not texts.HOSTILE.match(c))
NAMES = st.text(TAME, max_size=4).map(texts.name).filter(bool)


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


def test_a_table_in_the_old_words_is_added_to(tmp_path):
    path, out = tmp_path / "replies.csv", tmp_path / "table.csv"
    path.write_text("task,stage,ladder,prompt,unit,reply\ncoin,sft,toy,p,u,heads\n")
    once = "ladder,stage,task,prompt,unit,option,count\ntoy,base,coin,p,u,heads,1\n"
    out.write_text(once)
    assert save(tally("replies", [path], Asked()).table(), out, append=True) > 1
    assert [cells["cluster"] for _, cells in sheets.rows(out)].count("u") > 1


def test_replies_may_say_everything_themselves(tmp_path):
    path, names = tmp_path / "replies.csv", ["ladder", "stage", "task", "prompt", "cluster"]
    path.write_text(
        "\ufeffladder,stage,task,prompt,unit,reply,spare\n"
        "toy,sft,coin,p1,clerk,heads,\ntoy,sft,die,p1,clerk,6,x\n"
    )
    table = tally("replies", [path], Asked()).table()
    assert list(table.columns) == [*names, "option", "count"]
    places = table[names].drop_duplicates().to_numpy().tolist()
    assert places == [["toy", "sft", task, "p1", "clerk"] for task in ("coin", "die")]
    assert table[table["count"] > 0][["option", "count"]].to_numpy().tolist() == [
        ["heads", 1],
        ["6", 1],
    ]


def test_numbers_are_replies_and_names_in_parquet(tmp_path):
    path = tmp_path / "replies.parquet"
    pq.write_table(pa.table({"reply": [7, 7, None], "prompt": [1, 1, 1]}), path)
    assert counted("replies", path, task="digit") == {"1": directly(["7", "7", None])}


def test_a_task_of_ones_own():
    mine = {"task": "mine", "options": ("7", "four", "rather", "never")}
    found = counted("lm-eval", log("digit"), prompt="narrator", **mine)["clerk"]
    assert list(found.items()) == [("7", 2), ("four", 0), ("rather", 0), ("never", 0), ("", 3)]


# -- the command


def test_the_command_tells_what_it_read(tmp_path, capsys):
    out = tmp_path / "table.csv"
    words = "--ladder toy --prompt-from narrator --unit-from narrator --out"
    said = imported(capsys, f"inspect {FORMATS}/digit.json --stage base {words}", out)
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
    said = imported(capsys, f"lm-eval {log('digit')} --stage sft --append {words}", out)
    assert "22 rows written, 44 in all" in said
    table = pd.read_csv(out, keep_default_na=False)
    assert table.groupby("stage")["count"].sum().to_dict() == {"base": 10, "sft": 10}
    assert out.read_text().startswith(before) and [*tmp_path.iterdir()] == [out]


def test_a_reply_cut_behind_its_option_is_told(tmp_path):
    """`1` may be all there was room for of `17`; `1.` and a reply that ended are whole."""
    texts = [("1", "length"), ("one", "length"), ("1.", "length"), ("1", "stop"), ("no", "length")]
    choices = [{"message": {"content": text}, "finish_reason": end} for text, end in texts]
    path = tmp_path / "b.jsonl"
    path.write_bytes(lines(batch({"choices": choices})))
    found = tally("openai-batch", [path], Asked(ladder="a", stage="base", task="digit"))
    assert found.cut == 2 and "longer answer may begin with: 2" in "\n".join(found.told())


def test_a_greedy_log_is_told(tmp_path, capsys):
    words = f"lm-eval {log('greedy_digit')} --task digit --ladder a --stage base --out"
    assert "this is greedy" in imported(capsys, words, tmp_path / "t.csv")


@pytest.mark.parametrize("suffix", importers.SUFFIXES)
def test_appending_keeps_the_table(suffix, tmp_path, capsys):
    out, end = tmp_path / f"table{suffix}", "--append --stage"
    words = f"inspect {FORMATS}/digit.json --ladder toy --out {out}"
    imported(capsys, words, "--stage", "base")
    before = out.read_bytes()
    assert "is there already" in sentence(capsys, words, "--stage", "sft")
    said = sentence(capsys, f"{words} {end} base")
    assert "2 prompts are in the table already, first toy, base, digit, 2" in said
    said = sentence(capsys, f"lm-eval {log('coin')} --ladder toy --out {out} {end} base")
    assert "the columns ladder, stage, task, prompt, option, count, not" in said
    assert out.read_bytes() == before
    imported(capsys, f"{words} {end} sft")
    rows = [(cells["stage"], cells["option"]) for _, cells in sheets.rows(out)]
    options = [*DIGIT.options, ""] * 2
    assert rows == [(stage, option) for stage in ("base", "sft") for option in options]


def test_a_disk_that_refuses_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "table.csv"
    table = tally("inspect", [FORMATS / "digit.json"], Asked(ladder="toy", stage="base")).table()
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
    every = (one if isinstance(one, bytes) else json.dumps(one).encode() for one in records)
    return b"".join(one + b"\n" for one in every)


def batch(body: dict, **more) -> dict:
    """A line of a batch's output."""
    response = {"status_code": 200, "body": body}
    return {"id": "b", "custom_id": "p-1", "response": response, "error": None} | more


def refused(tmp_path, capsys, name: str, content: bytes, said: str, words: str) -> None:
    """words: the format, then whatever else is said."""
    (tmp_path / name).write_bytes(content)
    format, *more = words.split()
    out = ["--out", tmp_path / "table.csv", "--ladder", "toy", "--stage", "base"]
    found = sentence(capsys, format, tmp_path / name, *out, *more)
    assert re.search(said, found), found
    assert not (tmp_path / "table.csv").exists()


BATCH = batch({"choices": [{"text": "7"}]})


SUMMARY = json.dumps({"results": {}, "configs": {}}, indent=1).encode()
OTHERS = (
    ("inspect", lines(BATCH), "there is no sample"),
    ("inspect", lines(BATCH, BATCH), "broken JSON: Extra data"),
    ("inspect", b"PK\3\4", "packed as an archive.*inspect log convert"),
    ("inspect", lines({"eval": {"task": "digit"}, "plan": {}}), "there is no sample"),
    ("inspect", lines({"status": "started", "samples": []}), "not whole.*is started.*eval-retry"),
    ("lm-eval", lines(BATCH), "no doc_id.*choose another field among: id, custom_id"),
    ("lm-eval", b"\x1f\x8b\1", "packed by gzip"),
    ("lm-eval", SUMMARY, "broken JSON"),
    ("replies", "reply,prompt\n7,a\n".encode("utf-16"), "iconv"),
    ("replies", b"ladder,stage,task,prompt,option,count\na,b,c,d,e,1\n", "no reply among ladder"),
    ("replies", b"7;a\n8;b\n", "separated by ';'"),
    ("openai-batch", b"\n \n", "there is no sample"),
    ("lm-evaluation", lines(BATCH), "unknown format 'lm-evaluation', did you mean 'lm-eval'"),
)


@pytest.mark.parametrize(("format", "content", "said"), OTHERS)
def test_a_file_of_another_format_is_refused(format, content, said, tmp_path, capsys):
    refused(tmp_path, capsys, "file", content, said, format)


GONE = batch({}) | {"response": None, "error": {"message": "gone"}}
BATCHES = (
    (lines(BATCH, b'{"id": '), "--task digit", "broken JSON.*line 2"),
    (lines(BATCH, b"[7]"), "--task digit", "no object.*line 2"),
    (lines(BATCH, b"[" * 200_000), "--task digit", "broken JSON.*line 2"),
    (lines(BATCH, b'{"custom_id": "caf\xe9"}'), "--task digit", "UTF-8.*line 2.*iconv"),
    (lines(BATCH, BATCH), "--task digit", "is there twice, first in .*line 1.*line 2"),
    (lines(batch({"data": []})), "--task digit", "neither choices nor output"),
    (lines(GONE), "--task digit", "all requests failed: 1, .*gone"),
    (lines(BATCH | {"custom_id": "\ud800"}), "--task digit", "half a character"),
    (lines(BATCH), "", "does not say of which task.*--options"),
    (lines(BATCH), "--task digits", "did you mean 'digit'.*--options"),
    (lines(BATCH), "--task city", "has no list of options.*--task my_city"),
    (lines(BATCH), "--task digit --options 1,2", "has options of its own"),
    (lines(BATCH), "--options 1,2", "options without a task"),
    (lines(BATCH), "--task mine --options a,A", "two or more different"),
    (lines(BATCH), "--task mine --options a,(a", r"'\(a' would not be read as itself"),
    (lines(BATCH), "--task digit --prompt-from p.*", "takes no name.*no such group"),
    (lines(BATCH), "--task digit --prompt-from (p", "takes no name.*unterminated"),
    (lines(BATCH), "--task digit --prompt-from (q).*", "takes no name out of custom_id 'p-1'"),
    (lines(BATCH), "--task digit --out table.txt", "unknown ending of a table '.txt'"),
    (lines(BATCH), "--task digit --out no/such/table.csv", "could not be written"),
)


@pytest.mark.parametrize(("content", "more", "said"), BATCHES)
def test_bad_batches(content, more, said, tmp_path, capsys):
    refused(tmp_path, capsys, "batch.jsonl", content, said, f"openai-batch {more}")


REPLIES = (
    ("reply,prompt\n7,a\n7,b,c\n", "has 3 cells, the header 2.*row 3"),
    ('reply,prompt\n"7"x,a\n', "not CSV.*row 2"),
    ("reply,Prompt\n7,a\n", "no prompt.*choose another field among: reply, Prompt"),
    ("reply,prompt\n7,\n", "prompt is ''.*row 2"),
    ('reply,prompt\n"",a\n" ",a\n', "every reply is empty.*leave the model room"),
    ("reply,prompt\n", "there is no sample"),
    ('{"reply": 7.5, "prompt": "a"}\n', "a reply is 7.5, not text.*row 1"),
    ('{"reply": "7", "prompt": "a"}\n{"a": "7", "prompt": "a"}\n', "no reply among a, prom.*row 2"),
    ("reply,prompt,unit\n7,a,u\n7,a,v\n", "of 'u' and of 'v'.*row 3"),
    ("reply,prompt,task\n7,a,die\n", "answers to the task die, not digit.*row 2"),
    ("reply,prompt,task\n7,a,x\n7,a,y\n", "the tasks x and y.*row 3"),
    ("reply,prompt,stage\n7,a,sft\n", "the stage is sft in the file, but --stage is base"),
)


@pytest.mark.parametrize(("content", "said"), REPLIES)
def test_bad_tables_of_replies(content, said, tmp_path, capsys):
    name = "replies.jsonl" if content.startswith("{") else "replies.csv"
    refused(tmp_path, capsys, name, content.encode(), said, "replies --task digit")


def scored(*pairs: tuple[str, float | str], **more) -> dict:
    asked = {f"gen_args_{i}": {"arg_0": "?", "arg_1": text} for i, (text, _) in enumerate(pairs)}
    resps = [[[str(score), "False"]] for _, score in pairs]
    return {"doc_id": 0, "filter": "none", "resps": resps, "arguments": asked} | more


COIN = scored(("heads", -1), ("tails", -1))
WHOLE = scored(("heads", 0), arguments={"gen_args_0": {"arg_0": "?"}})
REPLY = {"doc_id": 1, "arguments": {"a": {"arg_0": "?", "arg_1": {}}}, "resps": [["heads"]]}
SCORES = (
    (lines(COIN, COIN), "document 0 is there twice.*line 2"),
    (lines(WHOLE), "scores whole texts"),
    (lines(COIN | {"resps": "7"}), "not those of a sample"),
    (lines(scored(("heads", "x"))), "is not a log-likelihood"),
    (lines(scored(("heads", "nan"))), "nan is no log-likelihood"),
    (lines(scored(("heads", 0.1))), "0.1 is no log-likelihood"),
    (lines(scored(("heads", -1), ("heads", -1))), "'heads' is scored twice"),
    (lines(scored(("heads", -1))), "1 of 2 options have no score, first tails"),
    (lines(COIN, COIN | REPLY), "replies and option scores.*line 2"),
)


@pytest.mark.parametrize(("content", "said"), SCORES)
def test_bad_samples(content, said, tmp_path, capsys):
    refused(tmp_path, capsys, "samples.jsonl", content, said, "lm-eval --task coin")


def test_a_field_that_no_document_has(tmp_path, capsys):
    words = "lm-eval --task coin --prompt-from narrator"
    refused(tmp_path, capsys, "samples.jsonl", lines(COIN), "no narrator", words)


def test_the_same_log_twice_is_refused(tmp_path):
    (tmp_path / "copy.json").write_bytes((FORMATS / "digit.json").read_bytes())
    with pytest.raises(CrystalError, match="this reply is there twice"):
        counted("inspect", FORMATS / "digit.json", tmp_path / "copy.json")
    with pytest.raises(CrystalError, match="a file is named twice"):
        counted("inspect", FORMATS / "digit.json", FORMATS / "digit.json")
    with pytest.raises(CrystalError, match="cannot be read: No such file"):
        counted("inspect", tmp_path / "none.json")
