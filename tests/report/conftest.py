"""Fixtures of the tests of the reports."""

from __future__ import annotations

import sys
from pathlib import Path

from browser_page import browser  # noqa: F401  # the fixture

sys.path.insert(0, str(Path(__file__).parent))
