"""Entries that become rules, and those that would get in each other's way."""

import pytest

from proxy.config import load as config
from proxy.config.load import ConfigError


@pytest.fixture
def load(tmp_path):
    """`load(text)`: the configuration of a file with this text."""

    def load(text):
        path = tmp_path / "config.toml"
        path.write_text(text)
        return config.load(path, environment={})

    return load


def entry(**keys):
    return {"name": "users", "key": "id", "value": "name"} | keys


def build(load, *entries):
    lines = ['postgres.database = "app"']
    for keys in entries:
        lines.append("[[table]]")
        lines += [f"{name} = {value!r}" for name, value in keys.items()]
    return load("\n".join(lines))


@pytest.mark.parametrize(
    "redis_key", ["users", "{id}", "rowtap:{id}", "users:{nope}", "users:{id", "r{id}", "{name}:{id}"]
)
def test_refused_templates(load, redis_key):
    with pytest.raises(ConfigError, match=r"config.toml:6: table\[1\].redis_key: "):
        build(load, entry(redis_key=redis_key))


def test_two_entries_for_the_same_keys(load):
    with pytest.raises(ConfigError, match=r"table\[2\].redis_key: makes the same keys as the entry for public.users"):
        build(load, entry(), entry(value="email"))
    with pytest.raises(ConfigError, match="makes the same keys"):
        build(load, entry(), entry(name="other", redis_key="users:{id}"))


def test_entries_on_one_table_are_told_apart_by_their_keys(load):
    found = build(load, entry(), entry(value="email", redis_key="mail:{id}"), entry(name="other"))
    assert [rule.label for rule in found.rules()] == [
        "app.public.users#{table}:{id}",
        "app.public.users#mail:{id}",
        "app.public.other",
    ]
    assert found.warnings() == []


def test_keys_that_may_meet_are_a_warning(load):
    found = build(load, entry(), entry(value="email", redis_key="users:{id}:email"))
    (warning,) = found.warnings()
    assert '"users:{id}:email"' in warning
