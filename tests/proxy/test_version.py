"""proxy/version.py."""

import tomllib
from pathlib import Path

from proxy.version import version

ROOT = Path(__file__).resolve().parents[2]


def test_version_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version() == project["version"]
