"""Which keys a scan asks Redis for, and which of the answer it takes."""

from fnmatch import fnmatchcase

import pytest

from cache.delivery.scanning import Scan
from cache.keys import KeyTemplate
from cache.rules import TableRule


def rule(text):
    template = KeyTemplate.parse(text, database="d", schema="s", table="t", key_columns=("id",))
    return TableRule("d", "s", "t", ("id",), ("v",), template, label=text)


@pytest.mark.parametrize(
    ("templates", "pattern"),
    [
        (["users:{id}"], b"users:*"),
        (["users:{id}", "user_orders:{id}", "uzt:{id}"], b"u*"),
        (["users:{id}", "users:old:{id}"], b"users:*"),
        (["a:{id}", "b:{id}"], b"*"),
        (["a:{id}", "a:{id}"], b"a:*"),
        (["a[1]:{id}", "a[2]:{id}"], b"a*"),
        (["a:{id}:x", "a:{id}:y"], b"a:*"),
    ],
)
def test_pattern_covers_the_keys_of_all_rules(templates, pattern):
    rules = tuple(map(rule, templates))
    scan = Scan(rules)
    assert (scan.pattern, scan.cursor) == (pattern, 0)
    for each in rules:
        assert fnmatchcase(each.template.render([b"1"]).decode(), pattern.decode())


def test_keys_that_only_match_the_pattern_are_left_alone():
    scan = Scan((rule("users:{id}"), rule("us:{id}:x")))
    assert scan.owned([b"users:1", b"us:1:x", b"us:1:y", b"usual:1"]) == [b"users:1", b"us:1:x"]
