"""``rowtap`` and ``python -m proxy``."""

from __future__ import annotations

from proxy.cli import app


def main() -> None:
    """Run the command line's command; ends the process with its status."""
    app(prog_name="rowtap")


if __name__ == "__main__":
    main()
