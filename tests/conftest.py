"""How tests share a machine: hypothesis sets no deadline, and beside other workers each has its
part of the cores.
"""

import os

from hypothesis import settings

from crystal.workers import cores

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_xdist_auto_num_workers(config) -> int:
    """`-n auto`: its own count does not see that a scheduler may leave a process a part of the
    machine's cores.
    """
    return cores()


# Before torch is imported: workers with as many threads as there are cores, each, would mostly
# wait for one another.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))
