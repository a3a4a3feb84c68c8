"""The command line: numbers as JSON, and bad input as one sentence and exit status 2, without a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from crystal.ask.free import read_all
from crystal.ask.tasks import TASKS
from crystal.cli import COMMANDS, main

DIGIT = "A random digit:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tmp_path_factory.mktemp("checkpoint"), context=64))


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose tokenizer has no chat template."""
    return str(tiny.save(tmp_path_factory.mktemp("silent"), tokenizer=tiny.trained_tokenizer(template=None)))


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The complaint: exit status 2, one line on stderr that says how to mend it, nothing on stdout."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"crystal {arguments[0]}: ") and "Mend: " in err
    return err


@pytest.mark.parametrize("form", ["completion", "chat"])
def test_readout(folder: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    got = report(capsys, "readout", "--model", folder, "--task", "digit", "--prompt", DIGIT, "--form", form, "--json")
    assert list(got) == ["options", "answered", "off_support", "unresolved"] and tuple(got["options"]) == TASKS["digit"].options
    assert sum(got["options"].values()) + got["off_support"] + got["unresolved"] == pytest.approx(1, abs=1e-6)


def test_sample_of_a_closed_task(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("sample", "--model", folder, "--task", "digit", "--prompt", DIGIT, "-n", "300", "--json")
    got = report(capsys, *asked)
    assert tuple(got["options"]) == TASKS["digit"].options
    assert sum(got["options"].values()) + got["off_support"] == sum(got["texts"].values()) == 300
    assert report(capsys, *asked) == got
    assert report(capsys, *asked, "--seed", "1") != got


def test_sample_of_free_answers(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("sample", "--model", folder, "--task", "digit", "--prompt", DIGIT, "-n", "50", "--free", "--max-tokens", "4")
    got = report(capsys, *asked, "--json")
    assert list(got) == ["options", "not_read", "texts"] and sum(got["options"].values()) + got["not_read"] == 50
    assert got["options"] | {None: got["not_read"]} == read_all(got["texts"], TASKS["digit"])
    assert "no task says which" in sentence(capsys, "sample", "--model", folder, "--prompt", DIGIT, "--free")


def test_sample_of_open_text(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    got = report(capsys, "sample", "--model", folder, "--prompt", "A city:", "-n", "20", "--max-tokens", "3", "--json")
    assert list(got) == ["texts"] and sum(got["texts"].values()) == 20


def test_tables_without_json(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["readout", "--model", folder, "--task", "coin", "--prompt", "A coin:"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("heads", "tails", "off_support: ", "unresolved: "))


@pytest.mark.parametrize(("more", "said"), [
    (("--task", "digits"), "did you mean 'digit'"),
    (("--task", "city"), "crystal sample"),
    (("--task", "digit", "--dtype", "int8"), "unknown dtype 'int8'"),
    (("--task", "digit", "--budget", "2"), "budget"),
    (("--task", "digit", "--revision", "0" * 64), "sha256"),
])
def test_wrong_arguments(more: tuple[str, ...], said: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in sentence(capsys, "readout", "--model", folder, "--prompt", DIGIT, *more)


def test_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = str(tmp_path / "absent")
    assert absent in sentence(capsys, "readout", "--model", absent, "--task", "digit", "--prompt", DIGIT)


@pytest.mark.parametrize("command", ["readout", "sample"])
def test_chat_form_without_a_template(command: str, silent: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = sentence(capsys, command, "--model", silent, "--task", "digit", "--prompt", DIGIT, "--form", "chat")
    assert "no chat template" in said and "--form completion" in said


@pytest.mark.parametrize("command", ["readout", "sample"])
def test_prompt_longer_than_the_context(command: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = sentence(capsys, command, "--model", folder, "--task", "digit", "--prompt", "digit " * 100)
    assert "context holds 64" in said


def test_unknown_page_and_ladder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "liquid-digit" in sentence(capsys, "why", "liquid-digits")
    assert "nano-llama" in sentence(capsys, "verify", "nano-lama")


def test_unknown_command_and_missing_argument(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["melt"], ["readout", "--task", "digit"], []):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2 and "usage: crystal" in capsys.readouterr().err


def test_module_is_the_command_and_lists_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "crystal", "--help"], capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith(" " * 4) and line[4] != " "}
    assert listed == {command.name for command in COMMANDS}
    done = subprocess.run([sys.executable, "-m", "crystal", "params"], capture_output=True, text=True, check=True)
    assert "quantile" in done.stdout


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = subprocess.Popen([sys.executable, "-m", "crystal", "params"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()  # long before the first line
    assert command.stderr.read() == b"" and command.wait() == 128 + signal.SIGPIPE


def test_a_command_that_needs_torch_says_so_without_it(monkeypatch, capsys):
    """`make reproduce` installs no torch: a sentence and exit status 2, not a traceback."""
    def absent(arguments):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("crystal.cli.COMMANDS", (COMMANDS[0]._replace(run=absent),))
    assert main(["readout", "--model", "x", "--prompt", "y", "--task", "digit"]) == 2
    said = capsys.readouterr().err
    assert "needs torch" in said and "requirements/full.txt" in said


def test_an_unknown_ladder_or_experiment_is_named_before_anything_is_loaded(capsys):
    assert main(["ladder", "kinetic"]) == 2
    assert "unknown ladder or experiment 'kinetic', did you mean 'kinetics'?" in capsys.readouterr().err


def test_a_prompt_that_is_not_answered_says_so(tmp_path, capsys):
    folder = tiny.save(tmp_path, seed=1)
    asked = ["readout", "--model", str(folder), "--prompt", "A digit:", "--json", "--task"]
    assert main([*asked, "suit"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["answered"] == pytest.approx(sum(said["options"].values()))
    assert ("not answered" in captured.err) == (said["answered"] < 0.2)
    assert captured.err.count("--reply \"") == captured.err.count("not answered")  # a cue to try
