"""`import nasdsl` is quick, because it imports nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTED = "import sys; before = set(sys.modules); import nasdsl; print(*sorted(set(sys.modules) - before))"


def test_importing_the_package_imports_the_standard_library_at_the_most() -> None:
    """How long it takes follows from that (12 ms); `make test-wheel` measures it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    modules = done.stdout.split()
    assert [name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names] == ["nasdsl"]
    assert len(modules) < 60
