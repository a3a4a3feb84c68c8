"""A ladder read by workers on Ray: the same store, byte for byte, whatever happens to them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic
import tiny
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crystal import files
from crystal.ask import ladders
from crystal.ask.tasks import PHASE_TASKS
from crystal.cli import main
from crystal.errors import CrystalError
from crystal.keep import cluster, manifest, resample, store
from crystal.keep.cluster import Board, Hire
from crystal.keep.resample import Batch, Plan, Read

WORK = 1e6  # some shards hold two tasks, some one
ASKED = {"tasks": ("coin", "die"), "checkpoints": ("sft", "dpo")}
SCRIPT = "import sys, crystal.keep.cluster, test_cluster; sys.exit(test_cluster.slow(sys.argv[1:]))"


# -- what is handed to whom, and when it comes out


def checkpoint(name: str, **more) -> ladders.Checkpoint:
    return ladders.Checkpoint(
        ladder="toy", name=name, stage=name, step=1, source=f"x/{name}", revision="0" * 40, **more
    )


def toy(checkpoints: int = 3) -> Plan:
    names = ladders.STAGES[:checkpoints]
    every = tuple(checkpoint(name) for name in names)
    ladder = ladders.Ladder(name="toy", title="toy", dtype="bfloat16", checkpoints=every)
    return Plan(ladder=ladder, checkpoints=every, forms=("chat",), tasks=PHASE_TASKS[:8])


def blank(batch: Batch) -> Read:
    return Read(batch, (), 0.0, 0.0, {})


def test_what_is_left_out_is_named() -> None:
    plan = toy()
    found = Board(plan)
    found.drop(plan.batches("sft")[1])
    assert "checkpoint sft, chat, task die, prompts 00-log to 19-story" in found.left_out()


@given(st.data())
def test_every_batch_comes_out_once_in_order_or_is_named(data: st.DataObject) -> None:
    """Workers that finish and fail in any order: no batch is lost, none comes twice."""
    plan = toy()
    found, out, busy = Board(plan), [], []
    expected = list(found.order)
    while found.order:
        while found.waiting and len(busy) < 4:
            busy.append(found.waiting.popleft())
        batch = busy.pop(data.draw(st.integers(0, len(busy) - 1)))
        if data.draw(st.integers(0, 3)) == 0:
            found.drop(batch)
        else:
            found.done[batch] = blank(batch)
        out += [read.batch for read in found.out()]
    assert len({*found.lost}) == len(found.lost)
    assert out == [batch for batch in expected if batch not in found.lost]
    assert found.left_out().startswith(f"{100 * len(found.lost)} cells are left out")


def test_a_checkpoint_that_lost_two_batches_is_given_up() -> None:
    found = Board(toy())
    for _ in range(cluster.LOST):
        found.drop(found.waiting.popleft())
    assert found.lost == toy().batches("base") and found.waiting[0].checkpoint == "sft"


def test_what_is_finished_comes_out_in_order_when_stopped() -> None:
    found = Board(toy())
    expected = list(found.order)
    found.done = {batch: blank(batch) for batch in (expected[9], expected[0], expected[4])}
    assert [read.batch for read in found.out()] == expected[:1]
    assert [read.batch for read in found.out(gaps=True)] == [expected[4], expected[9]]


# -- what a cluster must have


def test_a_worker_declares_what_its_largest_checkpoint_takes() -> None:
    plan = toy()
    need = cluster.need_of(
        plan.ladder,
        (checkpoint("sft", parameters=10**9), checkpoint("dpo", parameters=10**10)),
        2,
        1,
    )
    assert need == {"CPU": 2, "GPU": 1, "memory": 24e9}
    node = {"CPU": 16.0, "GPU": 4.0, "memory": 60e9}
    assert (
        cluster.room_for([node, {**node, "memory": 200e9}, {"CPU": 64.0, "memory": 1e12}], need)
        == 2 + 4
    )
    assert cluster.room_for([node], {"CPU": 1, "GPU": 0.5, "memory": 0}) == 8
    with pytest.raises(
        CrystalError, match="no node.*takes 2 processors, 8 GPUs and 24 GB of memory"
    ):
        cluster.room_for([node], {**need, "GPU": 8})


def sentence(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["resample", "nano-llama", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Hint: " in err
    return err


def test_without_ray_a_sentence_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "Hint: pip install '.[cluster]'" in sentence(capsys, "--cluster")


def test_workers_are_those_of_a_cluster(capsys) -> None:
    assert "Hint: crystal resample nano-llama --cluster" in sentence(capsys, "--workers", "2")
    assert "a whole number of 1 or more" in sentence(capsys, "--cluster", "--workers", "0")


def test_threads_must_be_a_number(monkeypatch, capsys) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    assert "OMP_NUM_THREADS is 'all'" in sentence(capsys, "--cluster")


def test_a_cluster_that_is_not_there(monkeypatch, capsys) -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    began = time.monotonic()
    said = f"cannot be reached: Connection refused (RAY_ADDRESS=127.0.0.1:{port}). Hint: ray start"
    assert said in sentence(capsys, "--cluster")
    assert time.monotonic() - began < 30


def test_versions_must_agree_but_for_the_build(monkeypatch) -> None:
    mine = manifest.versions()
    cluster._check_versions(
        {name: f"{version.split('+')[0]}+cu126" for name, version in mine.items()}
    )
    with pytest.raises(CrystalError, match=r"a worker has torch 2\.1\.0, and here it is"):
        cluster._check_versions({**mine, "torch": "2.1.0"})


# -- on Ray


class Deadly(cluster.Worker):
    """Is killed at the work that <root>/deadly names, as often as it says."""

    def _perhaps(self, work: str) -> None:
        path = files.root() / "deadly"
        if (
            path.exists()
            and (said := json.loads(path.read_text()))["work"] == work
            and said["times"]
        ):
            path.write_text(json.dumps({"work": work, "times": said["times"] - 1}))
            os.kill(os.getpid(), signal.SIGKILL)

    def load(self, checkpoint):
        self._perhaps(checkpoint)
        return super().load(checkpoint)

    def read(self, batch):
        self._perhaps(" ".join(map(str, batch)))
        return super().read(batch)


class Slow(cluster.Worker):
    def read(self, batch):
        time.sleep(2)
        return super().read(batch)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a ladder of tiny random checkpoints."""
    folder = tmp_path_factory.mktemp("described")
    synthetic.write_ladder(folder, "small", {checkpoint: {} for checkpoint in ladders.STAGES})
    path = folder / "data/ladders/small.yaml"
    raw = yaml.safe_load(path.read_text())
    for number, checkpoint in enumerate(raw["checkpoints"]):
        checkpoint["revision"] = ladders.weights_sha256(
            tiny.save(folder / checkpoint["source"], seed=number, sharpness=8.0)
        )
    path.write_text(yaml.safe_dump(raw))
    return folder


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def root(described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same in a place of its own, with nothing stored; one thread, as each worker has."""
    monkeypatch.setenv("CRYSTAL_ROOT", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(resample, "SHARD_WORK", WORK)
    shutil.copytree(described / "data", tmp_path / "data")
    with one_thread():
        yield tmp_path


@pytest.fixture(scope="module")
def ray() -> Iterator:
    """A cluster of this machine, joined once for all tests."""
    module = pytest.importorskip("ray")
    module.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CRYSTAL_ROOT", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        assert cluster.connect(module, 2)
        assert not cluster.connect(module, 2)
    yield module
    module.shutdown()


def stored(folder: Path) -> list[tuple]:
    """What each record says but for provenance, in order, and the bytes of its shard."""
    assert folder == files.root()
    return [
        ({**record, "provenance": None}, manifest.verified("small", record))
        for record in manifest.records("small")
    ]


@pytest.fixture(scope="module")
def alone(described: Path) -> list[tuple]:
    """What one process stores; the store is empty again afterwards."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setenv("CRYSTAL_ROOT", str(described))
        patch.setattr(resample, "SHARD_WORK", WORK)
        resample.resample("small", device="cpu", **ASKED)
        found = stored(described)
    assert len(found) > 4 and sum(record["rows"] for record, _ in found) == 800
    shutil.rmtree(described / "data/samples")
    return found


def deadly(root: Path, monkeypatch: pytest.MonkeyPatch, work: str, times: int) -> None:
    monkeypatch.setattr(cluster, "Worker", Deadly)
    (root / "deadly").write_text(json.dumps({"work": work, "times": times}))


def test_the_same_store_from_two_workers_though_one_is_killed(
    ray, root, alone, monkeypatch
) -> None:
    deadly(root, monkeypatch, "sft 1 coin", 1)
    frame = resample.resample("small", hire=Hire(2, 0), **ASKED)
    assert stored(root) == alone and frame["new"].sum() == 800
    assert json.loads((root / "deadly").read_text())["times"] == 0


@pytest.mark.slow
def test_a_batch_that_kills_three_workers_is_named_and_left_out(
    ray, root, alone, monkeypatch
) -> None:
    deadly(root, monkeypatch, "dpo 0 die", cluster.TRIES)
    said = "100 cells are left out, .* died 3 times: checkpoint dpo, .*, task die, prompts 00-log"
    with pytest.raises(CrystalError, match=said):
        resample.resample("small", hire=Hire(1, 0), **ASKED)
    assert store.verify("small").cells == 800 - 100
    frame = resample.resample("small", missing_only=True, device="cpu", **ASKED)
    assert frame["new"].sum() == 100
    assert distributions() == distributions_of(alone)


@pytest.mark.slow
def test_a_checkpoint_that_kills_workers_as_it_is_loaded(ray, root, monkeypatch) -> None:
    deadly(root, monkeypatch, "sft", 100)
    monkeypatch.setattr(cluster, "LOST", 1)
    with pytest.raises(CrystalError, match="400 cells are left out.*checkpoint sft, completion"):
        resample.resample("small", hire=Hire(1, 0), **ASKED)
    assert store.verify("small").cells == 400


def distributions() -> dict[str, tuple]:
    return by_key(store.read("small"))


def distributions_of(found: list[tuple]) -> dict[str, tuple]:
    return {
        key: distribution
        for _, blob in found
        for key, distribution in by_key(store.unpacked(blob)).items()
    }


def by_key(table) -> dict[str, tuple]:
    columns = table.select(["probability", "invalid", "residual", "tokens"]).to_pylist()
    return dict(zip(store.keys_of(table), map(tuple, map(dict.values, columns)), strict=True))


def test_a_worker_checks_the_weights(ray, root) -> None:
    weights = root / "data/weights/small/dpo/model.safetensors"
    shutil.copy(root / "data/weights/small/sft/model.safetensors", weights)
    with pytest.raises(CrystalError, match="the weights' sha256 is.*, on "):
        resample.resample("small", hire=Hire(1, 0), **ASKED)
    assert 0 < store.verify("small").cells <= 400  # what was read of the other checkpoint is kept
    shutil.rmtree(weights.parent)
    with pytest.raises(
        CrystalError, match="a worker lacks the weights of checkpoint 'dpo' of small.*CRYSTAL_ROOT"
    ):
        resample.resample("small", hire=Hire(1, 0), missing_only=True, **ASKED)


def test_a_worker_checks_the_tokenizer(ray, root) -> None:
    """What lies beside the weights is not pinned here; what was read before tells."""
    resample.resample("small", device="cpu", tasks=("coin",), checkpoints=("dpo",))
    template = root / "data/weights/small/dpo/chat_template.jinja"
    template.write_text(template.read_text().replace("user", "usre"))
    cells = store.verify("small").cells
    with pytest.raises(
        CrystalError, match="checkpoint 'dpo': tokenizer and chat template have sha256.*, on "
    ):
        resample.resample(
            "small", hire=Hire(1, 0), missing_only=True, **{**ASKED, "checkpoints": ("dpo",)}
        )
    assert store.verify("small").cells == cells == 200


def slow(arguments: list[str]) -> int:
    """The command line, with slow workers: for a process of its own, which is interrupted."""
    cluster.Worker, resample.SHARD_WORK = Slow, 0
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules["test_cluster"])
    return main(arguments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_held_back_and_a_second_one_is_not(number) -> None:
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    with cluster._held_back() as stop:
        signal.raise_signal(number)
        assert stop.is_set() and not heard
        signal.raise_signal(number)
        assert heard == [number]
    signal.signal(number, before)


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(root) -> None:
    """In a process of its own, which makes its own cluster and ends it."""
    pytest.importorskip("ray")
    asked = "resample small --cluster --workers 2 --task coin --task die --checkpoint sft".split()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((*sys.path, str(Path(__file__).parent)))},
    )
    deadline = time.monotonic() + 300
    while (
        store.verify("small").cells == 0 and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    said = "stopped; what was finished is kept (small). Hint: crystal resample small"
    assert process.returncode == 2 and said in err, err
    kept = store.verify("small").cells
    assert 0 < kept < 400
    asked = {"tasks": ("coin", "die"), "checkpoints": ("sft",)}
    frame = resample.resample("small", missing_only=True, device="cpu", **asked)
    found = distributions()
    assert frame["new"].sum() == 400 - kept and len(found) == 400
    shutil.rmtree(root / "data/samples")
    resample.resample("small", device="cpu", **asked)
    assert distributions() == found
