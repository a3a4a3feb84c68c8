"""The command line: numbers as JSON; whatever goes wrong is one sentence and no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
import tiny

from crystal import cli, texts
from crystal.ask.tasks import TASKS, read_all
from crystal.cli import GROUPS, main
from crystal.commands import COMMANDS, Command, positive, whole

DIGIT = "A random digit:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tmp_path_factory.mktemp("checkpoint"), context=64))


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose tokenizer has no chat template."""
    return str(
        tiny.save(
            tmp_path_factory.mktemp("silent"), tokenizer=tiny.trained_tokenizer(template=None)
        )
    )


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The complaint: exit status 2, nothing on stdout, one line on stderr with what to do."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.count("\n") == 1
        and err.startswith(f"crystal {arguments[0]}: ")
        and "Hint: " in err
    )
    return err


@pytest.mark.parametrize("form", ["completion", "chat"])
def test_readout(folder: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    got = report(
        capsys,
        "readout",
        "--model",
        folder,
        "--task",
        "digit",
        "--prompt",
        DIGIT,
        "--form",
        form,
        "--json",
    )
    assert (
        list(got) == ["options", "answered", "invalid", "residual"]
        and tuple(got["options"]) == TASKS["digit"].options
    )
    assert sum(got["options"].values()) + got["invalid"] + got["residual"] == pytest.approx(
        1, abs=1e-6
    )


def test_sample_of_a_closed_task(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "sample",
        "--model",
        folder,
        "--task",
        "digit",
        "--prompt",
        DIGIT,
        "-n",
        "300",
        "--json",
    )
    got = report(capsys, *asked)
    assert tuple(got["options"]) == TASKS["digit"].options
    assert sum(got["options"].values()) + got["invalid"] == sum(got["texts"].values()) == 300
    assert report(capsys, *asked) == got
    assert report(capsys, *asked, "--seed", "1") != got


def test_sample_of_free_answers(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "sample",
        "--model",
        folder,
        "--task",
        "digit",
        "--prompt",
        DIGIT,
        "-n",
        "50",
        "--free",
        "--max-tokens",
        "4",
    )
    got = report(capsys, *asked, "--json")
    assert (
        list(got) == ["options", "not_read", "texts"]
        and sum(got["options"].values()) + got["not_read"] == 50
    )
    assert got["options"] | {None: got["not_read"]} == read_all(got["texts"], TASKS["digit"])
    assert "no task says which" in sentence(
        capsys, "sample", "--model", folder, "--prompt", DIGIT, "--free"
    )


def test_sample_of_open_text(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    got = report(
        capsys,
        "sample",
        "--model",
        folder,
        "--prompt",
        "A city:",
        "-n",
        "20",
        "--max-tokens",
        "3",
        "--json",
    )
    assert list(got) == ["texts"] and sum(got["texts"].values()) == 20


def test_tables_without_json(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["readout", "--model", folder, "--task", "coin", "--prompt", "A coin:"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("heads", "tails", "invalid: ", "residual: "))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--task", "digits"), "did you mean 'digit'"),
        (("--task", "city"), "crystal sample"),
        (("--task", "digit", "--dtype", "int8"), "unknown dtype 'int8'"),
        (("--task", "digit", "--tolerance", "2"), "tolerance"),
        (("--task", "digit", "--revision", "0" * 64), "sha256"),
    ],
)
def test_wrong_arguments(
    more: tuple[str, ...], said: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in sentence(capsys, "readout", "--model", folder, "--prompt", DIGIT, *more)


def test_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = str(tmp_path / "absent")
    assert absent in sentence(
        capsys, "readout", "--model", absent, "--task", "digit", "--prompt", DIGIT
    )


@pytest.mark.parametrize("command", ["readout", "sample"])
def test_chat_form_without_a_template(
    command: str, silent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = sentence(
        capsys, command, "--model", silent, "--task", "digit", "--prompt", DIGIT, "--form", "chat"
    )
    assert "no chat template" in said and "--form completion" in said


@pytest.mark.parametrize("command", ["readout", "sample"])
def test_prompt_longer_than_the_context(
    command: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = sentence(
        capsys, command, "--model", folder, "--task", "digit", "--prompt", "digit " * 100
    )
    assert "context holds 64" in said


def test_unknown_page_and_ladder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "liquid-digit" in sentence(capsys, "page", "liquid-digits")
    assert "nano-llama" in sentence(capsys, "verify", "nano-lama")


def test_unknown_command_and_missing_argument(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["melt"], ["readout", "--task", "digit"], []):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2 and "usage: crystal" in capsys.readouterr().err


def test_module_is_the_command_and_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crystal", "--help"], capture_output=True, text=True, check=True
    )
    listed = {
        line.split()[0]
        for line in done.stdout.splitlines()
        if line.startswith(" " * 4) and line[4] != " "
    }
    assert listed == {command.name for command in COMMANDS}


def test_every_command_stands_in_one_group() -> None:
    listed = [name for names in GROUPS.values() for name in names]
    assert sorted(listed) == sorted(command.name for command in COMMANDS)


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "crystal", "page"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()  # long before the first line
    assert command.stderr.read() == b"" and command.wait() == 128 + signal.SIGPIPE


def test_a_command_that_needs_torch_says_so_without_it(monkeypatch, capsys):
    """`make reproduce` installs no torch: a sentence and exit status 2, not a traceback."""

    def absent(**arguments):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    (readout,) = [one for one in COMMANDS if one.name == "readout"]
    monkeypatch.setattr("crystal.cli.COMMANDS", (readout._replace(run=absent),))
    assert main(["readout", "--model", "x", "--prompt", "y", "--task", "digit"]) == 2
    said = capsys.readouterr().err
    assert "needs torch" in said and "requirements/full.txt" in said


def test_an_unknown_ladder_is_named_at_once(capsys):
    assert main(["ladder", "kinetic"]) == 2
    assert (
        "unknown ladder or experiment 'kinetic', did you mean 'kinetics'?"
        in capsys.readouterr().err
    )


def test_a_prompt_that_is_not_answered_says_so(tmp_path, capsys):
    folder = tiny.save(tmp_path, seed=1)
    asked = ["readout", "--model", str(folder), "--prompt", "A digit:", "--json", "--task"]
    assert main([*asked, "suit"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["answered"] == pytest.approx(sum(said["options"].values()))
    assert ("not answered" in captured.err) == (said["answered"] < 0.2)
    assert captured.err.count('--reply "') == captured.err.count("not answered")  # a cue to try


# -- streams, signals, numbers

REPOSITORY = Path(__file__).parent.parent


def shell(command: str, **settings: str) -> subprocess.CompletedProcess:
    """A shell command in which `crystal` is ours."""
    line = command.replace("crystal ", f"{sys.executable} -m crystal ")
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | settings,
    )


@pytest.mark.parametrize("command", ["page", "fetch"])
def test_a_full_stdout_is_a_sentence(command):
    done = shell(f"crystal {command} > /dev/full")
    assert done.returncode == 2 and "Hint: " in done.stderr and "No space left" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_nobodys_business(streams):
    done = shell(f"crystal page {streams}")
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_names_that_stdout_cannot_encode_are_escaped():
    done = shell("crystal page 'tü表' --why", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2 and r"t\xfc\u8868" in done.stderr


def test_no_character_acts_on_the_terminal(capsys):
    assert main(["page", "a\x1b]0;title\x07\u202eb"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\x07" not in said and "\u202e" not in said and r"\x1b" in said


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (MemoryError(), 2, "too little memory"),
        (PermissionError(13, "Permission denied", "/x"), 2, "permission"),
        (OSError(28, "No space left on device", "/x"), 2, "free disk space"),
        (IsADirectoryError(21, "Is a directory", "/x"), 2, "Is a directory (/x)"),
        (ModuleNotFoundError("torch", name="torch"), 2, "this command needs torch"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(monkeypatch, capsys, error, status, said):
    def fail():
        raise error

    monkeypatch.setattr(cli, "COMMANDS", (Command("fail", "fails", (), fail),))
    assert main(["fail"]) == status
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert "free disk space" not in shown or "No space" in shown


def test_an_error_of_ours_keeps_its_traceback_in_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "COMMANDS", (Command("fail", "fails", (), lambda: {}[texts]),))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["fail"]) == 70
    said = capsys.readouterr().err
    assert "should not happen: KeyError" in said and "Traceback" not in said
    assert "Traceback" in next(tmp_path.glob("crystal-traceback-*.txt")).read_text()


@pytest.mark.parametrize(
    "value",
    ["-1", "0", "1_0", "nan", "inf", "1e3", "", " 1", "x", "٣", "99999999999", "1.5", "\x1b[1m"],
)
@pytest.mark.parametrize("command", ["reproduce --jobs", "verify --jobs"])
def test_bad_numbers_of_jobs_are_a_sentence(value, command, capsys):
    command, option = command.split()
    assert main([command, f"{option}={value}"]) == 2
    said = capsys.readouterr().err
    assert (
        f"{option}: " in said
        and "is not a whole number" in said
        and "\x1b" not in said
        and said.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (whole(), {"0": 0, "7": 7}, ["-1", "+1", "1_000", "0x1", "²", "1\n"]),
        (whole(1, 9), {"9": 9}, ["0", "10"]),
        (positive(), {"1e-4": 1e-4, ".5": 0.5}, ["0", "-1", "nan", "inf", "1e999", "1_0.0", "٣"]),
    ],
)
def test_numbers_are_plain_and_in_bounds(kind, good, bad):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--n", type=kind)
    for text, value in good.items():
        assert parser.parse_args(["--n", text]).n == value
    for text in bad:
        with pytest.raises(Exception, match="is not a"):
            parser.parse_args([f"--n={text}"])
