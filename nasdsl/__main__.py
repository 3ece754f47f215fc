"""``python -m nasdsl``, the same program as ``nasdsl``."""

from nasdsl.cli import main

if __name__ == "__main__":
    main()
