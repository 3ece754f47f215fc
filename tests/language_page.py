"""The texts of the language's design page: each is a contract, kept under ``tests/data/language``."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "language"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.nas"))}
