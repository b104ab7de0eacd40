"""Rowtap's version. It is written in ``pyproject.toml`` only, and read from the installed distribution."""

import importlib.metadata


def version() -> str:
    """The installed distribution's version."""
    return importlib.metadata.version("rowtap")
