"""A real server, `transformers serve` with nano-llama on loopback: its draws follow the read-out; killed, nothing is lost."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import requests
from scipy import stats

from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import COMPLETION, PROMPTS
from crystal.ask.tasks import TASKS, read
from crystal.errors import CrystalError
from crystal.keep import drawn, served
from crystal.read.servers import Server

WANTED = [name for name in ("torch", "transformers", "fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(WANTED), reason=f"transformers serve needs {', '.join(WANTED)}")]
REPOSITORY = Path(__file__).parent.parent
BASE, SFT = (f"data/weights/nano-llama/{rung}" for rung in ("base", "sft"))
PART = [PROMPTS[0], PROMPTS[42], PROMPTS[88]]
ALARM = 1e-5  # of one chi-square test


class Serve:
    """`transformers serve` on a port of its own, which it keeps when it is killed and started again."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root, self.url = root, f"http://127.0.0.1:{self.port}"
        self.log, self.process = root / "serve.log", None

    def start(self) -> None:
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--device", "cpu",
                   "--port", str(self.port), "--dtype", "float32"]  # nano-llama's config.json says float16
        settings = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.root / "hub"), "OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.root, env=settings, stdout=log, stderr=log)
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                if requests.get(f"{self.url}/health", timeout=5).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-2000:])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "data").mkdir()
    shutil.copytree(REPOSITORY / "data" / "ladders", root / "data" / "ladders")
    (root / "data" / "weights").symlink_to(REPOSITORY / "data" / "weights")
    serve = Serve(root)
    serve.start()
    yield serve
    serve.kill()


@pytest.fixture(autouse=True)
def rooted(there, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(there.root))
    monkeypatch.setattr(served, "FLUSH_SECONDS", 0.0)
    for name in ("CRYSTAL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def draw(there: Serve, model: str, **changes):
    asked = {"tasks": ["digit"], "prompts": PART, "n": 300, "max_tokens": 4, "workers": 1, "patience": 60.0, "pause": 0.05}
    return served.draw("nano-llama", server=there.url, model=model, **{**asked, **changes})


def stored(**wanted) -> dict[str, dict[str, int]]:
    assert drawn.verify("nano-llama").problems == ()
    rows = [row for row in drawn.rows("nano-llama") if all(row[name] == value for name, value in wanted.items())]
    assert len({row["prompt"] for row in rows}) == len(rows)
    return {row["prompt"]: dict(zip(row["texts"], row["counts"], strict=True)) for row in rows}


@pytest.mark.parametrize("model", [BASE, SFT], ids=["completions", "chat"])
def test_draws_agree_with_the_read_out(there, model):
    """Chi-square on each of three prompts, over ten digits and anything else; false alarm 1e-5 each.

    Cells expected fewer than five times are pooled. What the read-out leaves unresolved is counted as anything else.
    """
    from crystal.read import engine, readout

    rung = load_ladder("nano-llama").rung(Path(model).name)
    machine, task = engine.load(rung.location, dtype="float32"), TASKS["digit"]
    assert list(draw(there, model)["draws"]) == [900]
    texts = stored(model=model, task="digit")
    ids = [machine.encode(prompt.text(task, rung.native_form), rung.native_form) for prompt in PART]
    for prompt, law in zip(PART, readout.readout(machine, ids, task), strict=True):
        said = Counter()
        for text, count in texts[prompt.id].items():
            said[read(text, task)] += count
        expected = 300 * np.append(law.options, 1 - law.options.sum())
        seen = np.array([said[option] for option in (*task.options, None)])
        many = expected >= 5
        seen, expected = (np.append(x[many], x[~many].sum()) for x in (seen, expected))
        if expected[-1] < 5:  # the pool, too
            smallest = expected[:-1].argmin()
            seen, expected = (np.append(np.delete(x[:-1], smallest), x[smallest] + x[-1]) for x in (seen, expected))
        assert stats.chisquare(seen, expected).pvalue > ALARM


def test_what_it_does_when_it_is_told_less(there):
    """Why generation_config is sent: temperature and top_p alone leave it greedy, do_sample alone leaves top-k 50."""
    def first(temperature: float, fields: dict) -> int:
        server = Server(url=there.url, model=SFT, settings=lambda t: {"temperature": t, "top_p": 1.0} | fields)
        asked = {"n": 1, "max_tokens": 1, "temperature": temperature}
        return len({server.ask(COMPLETION, "A word:", seed=seed, **asked).texts for seed in range(150)})

    assert first(100.0, {}) == 1
    assert 30 < first(100.0, {"generation_config": '{"do_sample": true}'}) <= 50
    with pytest.raises(CrystalError, match="status 422: Unexpected fields in the request: .*top_k"):
        Server(url=there.url, model=SFT, settings=lambda t: {"top_k": -1}).ask(COMPLETION, "A word:", n=1, max_tokens=1, seed=1)


@pytest.mark.parametrize("patient", [True, False], ids=["waits", "is run again"])
def test_killed_and_started_again(there, patient, monkeypatch):
    """Each request has a seed, so the draws of a run that was cut must be those of one that was not."""
    monkeypatch.setattr(served.dialects, "probe", lambda *_: "not probed")  # 128 requests, and not what is tested
    task, prompts = ("coin", "die")[patient], PROMPTS[:8]
    asked = {"tasks": [task], "prompts": prompts, "n": 12}
    draw(there, SFT, **asked)
    before = stored(model=SFT, task=task)
    log = there.root / "data" / "draws" / "nano-llama"
    shutil.move(log, there.root / f"before-{task}")
    seen = len(there.log.read_text())
    outcome: list = []

    def run() -> None:
        try:
            outcome.append(draw(there, SFT, **asked, patience=60.0 if patient else 0.5))
        except CrystalError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while there.log.read_text()[seen:].count("POST /v1/chat/completions") < 45:  # in the fourth cell
        assert thread.is_alive()
        time.sleep(0.02)
    there.kill()
    kept = 0
    if not patient:
        thread.join()
        kept = len(stored())
        assert "did not give an answer: no connection" in str(outcome.pop()) and 0 < kept < 8
    there.start()
    if not patient:
        run()
    thread.join()
    assert list(outcome.pop()["draws"]) == [12 * (8 - kept)]
    assert stored(model=SFT, task=task) == before and all(sum(texts.values()) == 12 for texts in before.values())
