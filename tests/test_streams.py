"""Whatever happens to a command, its user reads one sentence and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from crystal import cli, texts
from crystal.arguments import positive, whole
from crystal.cli import main
from crystal.commands import Command

REPOSITORY = Path(__file__).parent.parent


def shell(command: str, **settings: str) -> subprocess.CompletedProcess:
    """A shell command in which `crystal` is ours."""
    line = command.replace("crystal ", f"{sys.executable} -m crystal ")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | settings)


@pytest.mark.parametrize("command", ["params", "pin", "why liquid-coin"])
def test_a_full_stdout_is_a_sentence(command):
    done = shell(f"crystal {command} > /dev/full")
    assert done.returncode == 2 and "Mend: " in done.stderr and "No space left" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_nobodys_business(streams):
    done = shell(f"crystal params {streams}")
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_a_reader_who_leaves_is_no_error():
    done = shell("set -o pipefail; crystal params | head -n 1")
    assert done.returncode in (0, 141) and done.stderr == ""


def test_names_that_stdout_cannot_encode_are_escaped():
    done = shell("crystal why 'tü表'", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2 and r"t\xfc\u8868" in done.stderr


def test_no_character_acts_on_the_terminal(capsys):
    assert main(["why", "a\x1b]0;title\x07\u202eb"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\x07" not in said and "\u202e" not in said and r"\x1b" in said


@pytest.mark.parametrize(("error", "status", "said"), [
    (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    (MemoryError(), 2, "too little memory"),
    (PermissionError(13, "Permission denied", "/x"), 2, "permission"),
    (OSError(28, "No space left on device", "/x"), 2, "free disk space"),
    (IsADirectoryError(21, "Is a directory", "/x"), 2, "Is a directory (/x)"),
    (ModuleNotFoundError("torch", name="torch"), 2, "this command needs torch"),
])
def test_what_the_system_refuses_is_a_sentence(monkeypatch, capsys, error, status, said):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "COMMANDS", (Command("fail", "fails", lambda parser: None, fail),))
    assert main(["fail"]) == status
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
    assert "free disk space" not in shown or "No space" in shown


def test_an_error_of_ours_keeps_its_traceback_in_a_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "COMMANDS", (Command("fail", "fails", lambda parser: None, lambda a: {}[texts]),))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["fail"]) == 70
    said = capsys.readouterr().err
    assert "should not happen: KeyError" in said and "Traceback" not in said
    assert "Traceback" in next(tmp_path.glob("crystal-traceback-*.txt")).read_text()


@pytest.mark.parametrize("value", ["-1", "0", "1_0", "nan", "inf", "1e3", "", " 1", "x", "٣", "99999999999", "1.5", "\x1b[1m"])
@pytest.mark.parametrize("command", ["reproduce --jobs", "validate --jobs"])
def test_bad_numbers_of_jobs_are_a_sentence(value, command, capsys):
    command, option = command.split()
    assert main([command, f"{option}={value}"]) == 2
    said = capsys.readouterr().err
    assert f"{option}: " in said and "is not a whole number" in said and "\x1b" not in said and said.count("\n") == 1


@pytest.mark.parametrize(("kind", "good", "bad"), [
    (whole(), {"0": 0, "7": 7}, ["-1", "+1", "1_000", "0x1", "²", "1\n"]),
    (whole(1, 9), {"9": 9}, ["0", "10"]),
    (positive(), {"1e-4": 1e-4, ".5": 0.5}, ["0", "-1", "nan", "inf", "1e999", "1_0.0", "٣"]),
])
def test_numbers_are_plain_and_in_bounds(kind, good, bad):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--n", type=kind)
    for text, value in good.items():
        assert parser.parse_args(["--n", text]).n == value
    for text in bad:
        with pytest.raises(Exception, match="is not a"):
            parser.parse_args([f"--n={text}"])
