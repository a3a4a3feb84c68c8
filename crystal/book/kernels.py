"""Kernels forked from a process that has imported what pages use: a start costs a tenth.

A worker imports and stays as it is. Each page is run by a fork of it, which forks the page's kernel
before papermill has threads. Kernels are started by command where a fork is unsafe (macOS), hashes
are not fixed, the kernel is not this interpreter's, or the package was edited.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from ..files import PACKAGE, root
from ..workers import alone

FORK = get_context("fork")
LAUNCHER = "ipykernel_launcher"
USED = ("ipykernel.kernelapp", "papermill", "matplotlib.pyplot", "pyarrow.parquet", "seaborn")
SOCKETS = "crystal-kernel-"  # folders of sockets: this, the process, a random end
LONGEST = 103 - len("/s-5")  # bytes of a folder whose sockets every system takes (macOS 103)
BEGAN = time.time()  # when this process imported the package
_ready = False  # whether this process has imported it all


def apart(function: Callable, *task: Any, modules: Iterable[str]) -> Any:
    """`function(*task)` in a fork of this process, where that is safe. modules: that pages use."""
    global _ready
    _ready = sys.platform == "linux" and not sys.flags.hash_randomization
    for name in (*USED, *modules) if _ready else ():
        with contextlib.suppress(Exception):  # the page says so, where it needs it
            importlib.import_module(name)
    _ready = _ready and _as_imported()
    return alone(function, *task, context=FORK) if _ready else function(*task)


def _as_imported() -> bool:
    """Whether no module of this package was changed since this process began.

    A page's stamp names the code on disk, which has to be the code that made it.
    """
    package = [module for name, module in sys.modules.items() if name.split(".")[0] == "crystal"]
    try:
        return all(os.stat(module.__file__).st_mtime < BEGAN for module in package)
    except OSError:
        return False


@contextlib.contextmanager
def environment(own: Mapping[str, str] | None = None) -> Iterator[None]:
    """What kernels inherit: one thread, fixed hashes, this package; and of one page, its `own`."""
    before = dict(os.environ)
    path = [str(PACKAGE.parent), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {
        "CRYSTAL_ROOT": str(root()),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",  # this interpreter's kernel
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # as a kernel sets it
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **(own or {}),
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


@contextlib.contextmanager
def settings() -> Iterator[dict[str, Any]]:
    """For papermill: where the kernel listens and, if it is a fork of this process, its manager."""
    with _sockets() as config:
        if not _ready:
            yield {"config": config}
            return
        pipe, theirs = FORK.Pipe()
        kernel = _Kernel(target=_become, args=(theirs,))
        kernel.start()
        theirs.close()
        with pipe:  # closed: a kernel that was told nothing ends
            yield {"config": config, "kernel_manager_class": _manager(kernel, pipe)}


@contextlib.contextmanager
def _sockets() -> Iterator[Any]:
    """Settings of a kernel that listens in a private folder; on TCP where its path is too long.

    Jupyter chooses a free TCP port half a second before it binds it; another kernel may by then.
    """
    from traitlets.config import Config

    prefix = f"{SOCKETS}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        short = len(os.fsencode(folder)) <= LONGEST
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/s"}} if short else {})


def _become(pipe: Connection) -> None:
    """Wait for a command, then be the kernel that it would start; never returns."""
    try:
        os.setsid()
        for number in {*map(int, os.listdir("/proc/self/fd"))} - {0, 1, 2, pipe.fileno()}:
            with contextlib.suppress(OSError):
                os.close(number)  # else the end of the others would not end their pipes
        command, env, where = pipe.recv()
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


def _manager(kernel: _Kernel, pipe: Connection) -> type:
    """The class of a kernel manager that takes the fork as the process that it started."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    class Provisioner(LocalProvisioner):
        async def launch_kernel(self, cmd: list[str], **how: Any) -> Any:
            if cmd[:3] != [sys.executable, "-m", LAUNCHER]:
                return await super().launch_kernel(cmd, **how)
            env, where = how["env"], how.get("cwd") or os.getcwd()
            cmd = [*cmd, f"--IPKernelApp.parent_handle={os.getpid()}"]  # whose end is its own
            with contextlib.suppress(BrokenPipeError):  # a dead kernel is seen when polled
                pipe.send((cmd, env, where))
            self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
            return self.connection_info

    class Manager(AsyncKernelManager):
        async def _async_pre_start_kernel(self, **how: Any) -> Any:
            if self.provisioner is None:
                spec = self.kernel_spec
                self.provisioner = Provisioner(kernel_id="", kernel_spec=spec, parent=self)
            return await super()._async_pre_start_kernel(**how)

    return Manager


class _Kernel(FORK.Process):
    """A fork that is asked what a `Popen` is."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)
