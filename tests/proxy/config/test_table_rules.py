"""Entries that become rules, and entries that make the same keys."""

import pytest

from proxy.config.load import ConfigError


def entry(**keys):
    return {"name": "users", "key": "id", "value": "name"} | keys


def build(configured, *entries):
    lines = ['postgres.database = "app"']
    for keys in entries:
        lines.append("[[table]]")
        lines += [f"{name} = {value!r}" for name, value in keys.items()]
    return configured("\n".join(lines))


@pytest.mark.parametrize(
    "redis_key", ["users", "{id}", "rowtap:{id}", "users:{nope}", "users:{id", "r{id}", "{name}:{id}"]
)
def test_template_that_cannot_name_one_row_is_refused(configured, redis_key):
    with pytest.raises(ConfigError, match=r"config.toml:6: table\[1\].redis_key: "):
        build(configured, entry(redis_key=redis_key))


def test_two_entries_that_make_the_same_keys_are_refused(configured):
    with pytest.raises(ConfigError, match=r"table\[2\].redis_key: makes the same keys as the entry for public.users"):
        build(configured, entry(), entry(value="email"))
    with pytest.raises(ConfigError, match="makes the same keys"):
        build(configured, entry(), entry(name="other", redis_key="users:{id}"))


def test_labels_of_entries_on_one_table_have_their_templates(configured):
    found = build(configured, entry(), entry(value="email", redis_key="mail:{id}"), entry(name="other"))
    assert [rule.label for rule in found.rules()] == [
        "app.public.users#{table}:{id}",
        "app.public.users#mail:{id}",
        "app.public.other",
    ]
    assert found.warnings() == []


def test_templates_that_can_make_the_same_key_are_a_warning(configured):
    found = build(configured, entry(), entry(value="email", redis_key="users:{id}:email"))
    (warning,) = found.warnings()
    assert '"users:{id}:email"' in warning
