"""Kernels forked from a process that has imported what pages use: a start costs a tenth.

A worker imports and stays as it is. Each page is run by a fork of it, which forks the page's kernel
before papermill has threads. Where a fork is unsafe (macOS), or hashes are not fixed, kernels are
started by command, and so is any other kernel than this interpreter's.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from ..workers import alone

LAUNCHER = "ipykernel_launcher"
USED = ("ipykernel.kernelapp", "papermill", "matplotlib.pyplot", "pyarrow.parquet", "seaborn")
_ready = False  # whether this process has imported it all


def apart(function: Callable, *task: Any, modules: Iterable[str] = ()) -> Any:
    """`function(*task)` in a fork of this process, where that is safe. modules: that pages use."""
    global _ready
    if sys.platform != "linux" or sys.flags.hash_randomization:
        return function(*task)
    for name in (*USED, *modules):
        with contextlib.suppress(Exception):  # the page says so, where it needs it
            importlib.import_module(name)
    _ready = True
    multiprocessing.current_process().daemon = False  # else it may have no children
    return alone(function, *task, context=multiprocessing.get_context("fork"))


@contextlib.contextmanager
def waiting() -> Iterator[dict[str, Any]]:
    """Settings of a run whose kernel is a fork of this process; none where it has to be started."""
    if not _ready:
        yield {}
        return
    told, tell = os.pipe()
    if not (process := os.fork()):
        _become(told)
    os.close(told)
    with open(tell, "wb") as pipe:  # closed: a kernel that was told nothing ends
        yield {"kernel_manager_class": _manager(process, pipe)}


def _become(told: int) -> None:
    """Wait for a command, then be the kernel that it would start; never returns."""
    try:
        os.setsid()
        os.closerange(3, told)
        os.closerange(told + 1, os.sysconf("SC_OPEN_MAX"))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        with open(told, encoding="utf-8") as file:
            command, env, where = json.load(file)
        os.environ.clear()
        os.environ |= env
        os.chdir(where)
        sys.argv = command[2:]
        sys.path[:0] = ["", *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
        runpy.run_module(LAUNCHER, run_name="__main__", alter_sys=True)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _manager(process: int, pipe: BinaryIO) -> type:
    """The class of a kernel manager that takes the fork as the process that it started."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    class Provisioner(LocalProvisioner):
        async def launch_kernel(self, cmd: list[str], **how: Any) -> Any:
            if cmd[:3] != [sys.executable, "-m", LAUNCHER]:
                return await super().launch_kernel(cmd, **how)
            env, where = how["env"], how.get("cwd") or os.getcwd()
            env |= {"JPY_PARENT_PID": str(os.getpid())}
            with contextlib.suppress(BrokenPipeError), pipe:  # a dead kernel is seen when polled
                pipe.write(json.dumps([cmd, env, str(where)]).encode())
            self.process, self.pid, self.pgid = _Process(process), process, process
            return self.connection_info

    class Manager(AsyncKernelManager):
        async def _async_pre_start_kernel(self, **how: Any) -> Any:
            if self.provisioner is None:
                spec = self.kernel_spec
                self.provisioner = Provisioner(kernel_id="", kernel_spec=spec, parent=self)
            return await super()._async_pre_start_kernel(**how)

    return Manager


class _Process:
    """What is asked of a `Popen`, of a fork."""

    stdin = stdout = stderr = status = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self, how: int = os.WNOHANG) -> int | None:
        if self.status is None:
            found, status = os.waitpid(self.pid, how)
            self.status = os.waitstatus_to_exitcode(status) if found else None
        return self.status

    def wait(self) -> int | None:
        return self.poll(0)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
