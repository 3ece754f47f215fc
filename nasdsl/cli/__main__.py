"""``python -m nasdsl.cli``."""

from nasdsl.cli import main

main()
