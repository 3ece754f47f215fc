"""Work in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

LIMIT = 120
"""Seconds after which a child is ended: one that waits for another without end fails its test."""

_children: dict[int, subprocess.Popen[bytes]] = {}


def in_child(work: Callable[[], object]) -> int:
    """Run `work`, any function or lambda, in a new process; its id.

    The process ends with code 0, with 1 after an exception, or with the code of a SystemExit. It is not forked: torch refuses
    autograd in a forked process once its parent has used it with anything of a GPU about, and the fake tensors of
    `torch.export`, in a test that happened to run before, are enough for that.
    """
    import cloudpickle

    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(cloudpickle.dumps(work))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.Popen([sys.executable, __file__, file.name], env=environment)
    _children[child.pid] = child
    return child.pid


def in_fork(work: Callable[[], object]) -> int:
    """As `in_child`, for work without autograd, which then begins at once."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(LIMIT)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    """Of a child, when it has ended; negative: the signal that ended it."""
    if pid in _children:
        return _children.pop(pid).wait()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _main(file: Path) -> None:
    signal.alarm(LIMIT)
    import cloudpickle
    import torch

    torch.set_num_threads(1)
    work = cloudpickle.loads(file.read_bytes())
    file.unlink()
    work()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
