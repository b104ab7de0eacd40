"""Rowtap's version: written in ``pyproject.toml`` alone, and read from what is installed."""

import importlib.metadata


def version() -> str:
    """The installed distribution's version."""
    return importlib.metadata.version("rowtap")
