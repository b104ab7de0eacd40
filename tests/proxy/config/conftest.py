"""A configuration of a file with a given text."""

import pytest

from proxy.config.load import load


@pytest.fixture
def configured(tmp_path):
    """`configured(text, overrides, NAME="value")`: the configuration of `tmp_path / "config.toml"` with this text, and
    of these flags and variables of the environment."""

    def make(text="", overrides=None, **environment):
        path = tmp_path / "config.toml"
        path.write_text(text)
        return load(path, overrides, environment)

    return make
