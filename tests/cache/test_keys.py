"""Key templates: every row its own key, none under ``rowtap:``, and a flush that knows its own keys."""

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from cache.keys import KeyTemplate

NAMES: Any = {"database": "app", "schema": "public", "table": "users"}
INT8, UUID, TEXT = 20, 2950, 25


def parse(text, *columns, **types):
    return KeyTemplate.parse(text, **NAMES, key_columns=columns or ("id",), types=types)


@pytest.mark.parametrize(
    ("text", "columns", "parts", "key"),
    [
        ("users:{id}", ("id",), [b"42"], b"users:42"),
        ("{database}.{schema}.{table}:{id}", ("id",), [b"42"], b"app.public.users:42"),
        ("users:{id}:name", ("id",), [b"42"], b"users:42:name"),
        ("users:{{{id}}}", ("id",), [b"42"], b"users:{42}"),
        ("100%:{id}", ("id",), [b"a%:b"], b"100%:a%:b"),
        ("{table}:{id}:{id}", ("id",), [b"1"], b"users:1:1"),
        ("u:{tenant}:{id}", ("tenant", "id"), [b"a:b%", b"1"], b"u:a%3Ab%25:1"),
        ("u:{id}:{tenant}", ("tenant", "id"), [b"acme", b"1"], b"u:1:acme"),
        ("{table}/{a}:user:{b}/%", ("a", "b"), [b"user", b"x:y"], b"users/user:user:x%3Ay/%"),
        ("k{a}·{b}", ("a", "b"), ["é·".encode(), b"\xc2"], "ké%C2%B7·".encode() + b"\xc2"),
        ("t:{table}:{id}", ("table", "id"), [b"own", b"1"], b"t:own:1"),
        ("t:{MiXed col}", ("MiXed col",), [b"1"], b"t:1"),
        ("users:{id}", ("id",), [b""], b"users:"),
        ("ключ:{id}", ("id",), [b"1"], "ключ:1".encode()),
    ],
)
def test_key_is_rendered_owned_and_taken_apart(text, columns, parts, key):
    template = parse(text, *columns)
    assert template.render(parts) == key
    assert template.owns(key)
    assert template.parts(key) == tuple(parts)


@pytest.mark.parametrize(
    ("text", "columns", "complaint"),
    [
        ("users", ("id",), "leaves out the key column 'id'.*add {id}"),
        ("users:{tenant}", ("tenant", "id"), "leaves out the key column 'id'"),
        ("users:{name}", ("id",), "unknown placeholder {name}: use {id}, {table}, {schema}, {database}"),
        ("users:{}", ("id",), "unknown placeholder {}"),
        ("users:{id", ("id",), "lone '{'.*'{{'"),
        ("users:id}", ("id",), "lone '}'"),
        ("u:{a}{b}", ("a", "b"), r"nothing between {a} and {b}.*{a}:{b}"),
        ("u:{a}{b}:{c}", ("a", "b", "c"), "nothing between {a} and {b}"),
        ("u:{a}0{b}", ("a", "b"), "percent-encoding"),
        ("u:{a}%25{b}", ("a", "b"), "percent-encoding"),
        ("rowtap:{id}", ("id",), "'rowtap:'"),
        ("rowtap:x:{id}", ("id",), "'rowtap:'"),
        ("{id}", ("id",), "begin it with other fixed text, such as {table}:"),
        ("row{id}", ("id",), "'rowtap:'"),
        ("{a}r{b}", ("a", "b"), "'rowtap:'"),
        ("{a}:{b}", ("a", "b"), "'rowtap:'"),
    ],
)
def test_bad_template_is_refused_with_what_would_be_right(text, columns, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse(text, *columns)


def test_table_called_rowtap_needs_another_template():
    with pytest.raises(ValueError, match="rowtap:"):
        KeyTemplate.default(database="d", schema="s", table="rowtap", key_columns=["id"])
    assert parse("rowtap2:{id}").render([b"seq"]) == b"rowtap2:seq"


def test_template_of_an_integer_key_needs_no_fixed_text():
    assert parse("{id}", id=INT8).render([b"42"]) == b"42"


@pytest.mark.parametrize("columns", [("id",), ("tenant", "id"), ("table", "a}{b"), ("a", "b", "c")])
def test_default_template_joins_table_and_key_columns(columns):
    template = KeyTemplate.default(**NAMES, key_columns=columns)
    parts = [b"x", b"y", b"z"][: len(columns)]
    assert template.render(parts) == b"users:" + b":".join(parts)


def test_default_template_renders_as_its_text_does():
    for columns in (("id",), ("tenant", "id")):
        default = KeyTemplate.default(**NAMES, key_columns=columns)
        parts = [b"a:%", b"b:%"][: len(columns)]
        assert parse(default.text, *columns).render(parts) == default.render(parts)


SEPARATORS = st.text(st.sampled_from(":/|-_.%05AFxu·é日{}"), max_size=4)
PARTS = st.one_of(
    st.binary(max_size=6), st.text(st.sampled_from("%:/|-_.05AFxu·é日C2B7"), max_size=6).map(str.encode), st.just(b"")
)


@st.composite
def templates(draw, columns=3):
    names = [f"c{number}" for number in range(draw(st.integers(1, columns)))]
    order = draw(st.permutations(names)) + draw(st.lists(st.sampled_from(names), max_size=2))
    text = draw(SEPARATORS).replace("{", "{{").replace("}", "}}")
    for name in order:
        text += f"{{{name}}}" + draw(SEPARATORS).replace("{", "{{").replace("}", "}}")
    try:
        return KeyTemplate.parse(text, **NAMES, key_columns=names)
    except ValueError:
        assume(False)


@given(templates(), st.data())
def test_rendered_key_gives_back_its_parts(template, data):
    size = len(template.key_columns)
    row = data.draw(st.lists(PARTS, min_size=size, max_size=size))
    assert template.parts(template.render(row)) == tuple(row)


@given(templates(), st.binary(max_size=12))
def test_key_has_parts_exactly_if_it_is_owned(template, tail):
    key = template.render([b"1"] * len(template.key_columns)) + tail
    parts = template.parts(key)
    assert (parts is not None) is template.owns(key)
    if parts is not None:
        assert template.render(parts) == key


def test_foreign_key_has_no_parts():
    assert parse("users:{id}", id=INT8).parts(b"users:x") is None
    assert parse("u:{a}:{b}", "a", "b").parts(b"u:1%3a:2") is None, "lower-case digits are never written"


@given(templates(), st.data())
def test_no_two_rows_share_a_key(template, data):
    rows = st.lists(PARTS, min_size=len(template.key_columns), max_size=len(template.key_columns))
    first, second = data.draw(rows), data.draw(rows)
    assert (template.render(first) == template.render(second)) is (first == second)


@given(st.lists(PARTS, min_size=2, max_size=2), st.lists(PARTS, min_size=2, max_size=2))
@example([b"a", b"b:c"], [b"a:b", b"c"])
@example([b"%3A", b""], [b":", b""])
@example([b"", b":x"], [b":", b"x"])
def test_no_two_rows_share_a_key_of_the_usual_form(first, second):
    template = parse("u:{a}:{b}", "a", "b")
    assert (template.render(first) == template.render(second)) is (first == second)


@given(templates(), st.data())
def test_every_rendered_key_is_owned_and_matches_the_pattern(template, data):
    size = len(template.key_columns)
    key = template.render(data.draw(st.lists(PARTS, min_size=size, max_size=size)))
    assert template.owns(key)
    assert not key.startswith(b"rowtap:")
    assert globbed(template.pattern, key)


def globbed(pattern, key):
    """What Redis' stringmatchlen does with ``*`` and backslash, the only two a pattern uses unescaped."""
    expression = re.sub(rb"\\(.)|\*|(.)", lambda m: b"[\\s\\S]*" if m[0] == b"*" else re.escape(m[1] or m[2]), pattern,
                        flags=re.DOTALL)  # fmt: skip
    return re.fullmatch(expression, key) is not None


@given(templates(), st.data())
def test_template_with_types_renders_the_same_and_owns_it(template, data):
    typed = template.with_types(dict.fromkeys(template.key_columns, INT8))
    numbers = [str(data.draw(st.integers(-(2**63), 2**63 - 1))).encode() for _ in template.key_columns]
    assert typed.owns(typed.render(numbers))
    assert typed.render(numbers) == template.render(numbers)


def test_keys_of_another_form_are_not_owned():
    template = parse("users:{id}", id=INT8)
    assert template.owns(b"users:42")
    assert template.owns(b"users:-9223372036854775808")
    for foreign in (
        b"users:42:profile",
        b"users:",
        b"users:007",
        b"users:4 2",
        b"users:42\n",
        b"users:-0",
        b"users:+1",
    ):
        assert not template.owns(foreign)
    assert parse("users:{id}").owns(b"users:42:profile")  # a text key may be just that
    composite = parse("u:{a}:{b}", "a", "b")
    assert composite.owns(b"u:x:y")
    for foreign in (b"u:x:y:z", b"u:x", b"u:%:y", b"u:%3a:y", b"v:x:y"):
        assert not composite.owns(foreign)
    uuid = parse("u:{id}", id=UUID)
    assert uuid.owns(b"u:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
    assert not uuid.owns(b"u:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1")
    twice = parse("u:{id}:{id}")
    assert twice.owns(b"u:a:a")
    assert not twice.owns(b"u:a:b")


def test_pattern_escapes_what_a_glob_would_not_take_as_it_is():
    assert parse("a*b?[c]\\d:{id}").pattern == rb"a\*b\?\[c\]\\d:*"


def test_typed_part_is_encoded_where_it_can_contain_the_separator():
    template = parse("u:{a}-{b}", "a", "b", a=INT8, b=INT8)
    key = template.render([b"-1", b"2"])
    assert key == b"u:%2D1-2"
    assert template.owns(key)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (parse("users:{id}"), parse("users:{id}"), True),
        (parse("users:{id}"), parse("user:{id}"), False),
        (parse("users:{id}"), parse("users:x:{id}"), True),
        (parse("users:{id}", id=INT8), parse("users:x:{id}"), False),
        (parse("u:{a}:{b}", "a", "b"), parse("u:{a}:{b}:{c}", "a", "b", "c"), False),
        (parse("u:{a}:{b}", "a", "b"), parse("u:{id}"), True),
        (parse("u:{a}:{b}", "a", "b"), parse("u:{id}", id=INT8), False),
        (parse("u:{id}:name"), parse("u:{id}:mail"), False),
        (parse("u:{id}:name", id=INT8), parse("u:{id}", id=INT8), False),
        (parse("u{id}"), parse("us{id}"), True),
    ],
)
def test_templates_overlap_if_a_key_may_have_both_forms(one, other, overlap):
    assert one.overlaps(other) is overlap
    assert other.overlaps(one) is overlap


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # few pairs of templates share a key
@given(templates(columns=2), templates(columns=2), st.data())
def test_templates_that_share_a_key_always_overlap(one, other, data):
    keys = [t.render([data.draw(PARTS) for _ in t.key_columns]) for t in (one, other)]
    if one.owns(keys[1]) or other.owns(keys[0]):
        assert one.overlaps(other)


def test_repr_shows_text_and_key_columns():
    assert repr(parse("users:{id}")) == "KeyTemplate('users:{id}', key_columns=('id',))"
