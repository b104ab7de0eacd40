"""Our reading of SQL against PostgreSQL's own parser (libpg_query): over every text of this repository, over generated
texts, over the same with a few lexemes changed, and with every key word as a name. ``against_parser/`` compares them.

Only what PostgreSQL takes is compared: a text that it refuses does nothing. What we cannot read is never wrong; how
much that is, is printed and bounded.
"""

import itertools
import platform
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cache.sql import commands, lexer
from cache.sql.plans import Command
from cache.sql.statements import Name, Write
from tests.depth import DEEP, depth, patient

SEED = 1
"""A commit always asks for the same texts; DEEP asks for others each time, and names its seed when it fails."""
HAS_WHEEL = (
    sys.implementation.name == "cpython"
    and sys.version_info < (3, 15)
    and (sys.platform == "linux" or (sys.platform == "darwin" and platform.machine() == "arm64"))
)
"""As pyproject.toml has it."""
FOUND = [
    line.replace("␤", "\n")
    for line in (Path(__file__).parent / "against_parser" / "found.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def parser(missing):
    """The modules that need PostgreSQL's parser."""
    try:
        import postgast  # noqa: F401 - asks whether it is there
    except (ImportError, OSError) as error:
        if HAS_WHEEL:
            missing(f"PostgreSQL's parser, postgast, is not installed: {error}")
        pytest.skip("postgast has no wheel for this machine")
    from tests.cache.sql.against_parser import compare, generated, lexemes, shrink, texts

    return SimpleNamespace(compare=compare, generated=generated, lexemes=lexemes, shrink=shrink, texts=texts)


def seed():
    return int(time.time()) if DEEP else SEED


def check(parser, texts, *, unread, note=""):
    """Judges all texts. ``unread`` is how much of what PostgreSQL takes may be unreadable to us."""
    taken = statements = opaque = 0
    wrong = {}
    for text in texts:
        verdict = parser.compare.judge(text)
        if not verdict.refused:
            taken += 1
            statements += verdict.statements
            opaque += verdict.unread
        if verdict.differences:
            wrong[text] = verdict.differences
    assert not wrong, report(parser, wrong, note)
    share = opaque / max(1, statements)
    sys.stdout.write(
        f"{statements} statements in {taken} texts, of which {opaque} ({share:.1%}) could not be read{note}\n"
    )
    assert share <= unread, f"{opaque} of {statements} statements could not be read{note}"
    return taken


def report(parser, wrong, note):
    """The shortest texts that are read wrong, made shorter still."""

    def differs(text):
        return bool(parser.compare.judge(text).differences)

    lines = [f"{len(wrong)} texts are read otherwise than PostgreSQL reads them{note}"]
    for text in sorted(wrong, key=len)[:5]:
        shorter = parser.shrink.shrunk(text, differs)
        lines += [shorter, *(f"    {difference}" for difference in parser.compare.judge(shorter).differences)]
    return "\n".join(lines)


def test_every_text_of_the_repository_is_read_as_postgresql_reads_it(parser):
    texts = parser.texts.harvested()
    assert check(parser, texts, unread=0.025) > 2_000


@patient
def test_generated_texts_are_read_as_postgresql_reads_them(parser):
    start, count = seed(), depth(1_000, 200_000)
    texts = parser.generated.Generator(start).texts(count)
    assert check(parser, texts, unread=0.45, note=f" (seed {start})") > count / 2


@patient
def test_texts_with_changed_lexemes_are_read_as_postgresql_reads_them(parser):
    start, count = seed(), depth(8_000, 2_000_000)
    chosen = itertools.chain(
        (text for text in parser.texts.harvested() if len(text) < 1_000),
        parser.generated.Generator(start).texts(300),
    )
    collection = [(text, parser.lexemes.lexemes(text)) for text in chosen if parser.compare.is_taken(text)]
    texts = parser.generated.Mutator(start, collection).texts(count)
    assert check(parser, texts, unread=0.2, note=f" (seed {start})") > count / 20


@patient
def test_key_words_as_names_are_read_as_postgresql_reads_them(parser):
    texts = list(parser.generated.key_word_texts())
    check(parser, texts[:: depth(31, 1)], unread=0.1)


@pytest.mark.parametrize("text", FOUND)
def test_text_once_read_wrong_is_read_as_postgresql_reads_it(parser, text):
    verdict = parser.compare.judge(text)
    assert not verdict.refused
    assert verdict.differences == ()


# The comparison itself


def without_a_name(statement):
    if statement.names and not statement.created:
        statement.names = frozenset(sorted(statement.names, key=str)[1:])


def without_a_write(statement):
    statement.writes = statement.writes[1:]


def with_a_write(statement):
    statement.writes = (*statement.writes, Write(statement.writes[0].verb, Name(None, "more")))


def without_functions(statement):
    statement.functions = frozenset()


def without_an_assignment(statement):
    for write in statement.writes:
        write.assignments = write.assignments[1:]


def with_another_value(statement):
    for write in statement.writes:
        values = [value for _, value in write.assignments]
        write.assignments = tuple((column, values[-1]) for column, _ in write.assignments)


def with_another_key(statement):
    for write in statement.writes:
        for equality in write.equalities:
            object.__setattr__(equality, "columns", tuple("other" for _ in equality.columns))


def never_nullable(statement):
    for reference in statement.references:
        reference.nullable = False


def never_blocked(statement):
    for reference in statement.references:
        reference.no_fill = None


def without_a_parameter(statement):
    statement.parameters.clear()


def without_returning(statement):
    for write in statement.writes:
        write.returning = False


def of_another_kind(statement):
    statement.command = Command.COMMIT


SABOTAGE = [
    (without_a_name, "SELECT * FROM a, b WHERE x IN (SELECT y FROM c)"),
    (without_a_write, "WITH d AS (DELETE FROM a) UPDATE b SET x = 1"),
    (with_a_write, "UPDATE b SET x = 1"),
    (without_functions, "SELECT f(x) FROM a"),
    (without_an_assignment, "UPDATE a SET x = 1, y = 2"),
    (with_another_value, "UPDATE a SET x = 1, y = 2"),
    (with_another_key, "UPDATE a SET x = 1 WHERE id = 2"),
    (never_nullable, "SELECT b.x FROM a LEFT JOIN b ON a.id = b.id"),
    (never_blocked, "SELECT x FROM a UNION SELECT y FROM b"),
    (never_blocked, "SELECT x FROM a GROUP BY ROLLUP (x)"),
    (without_a_parameter, "SELECT * FROM a WHERE id = $1"),
    (without_returning, "DELETE FROM a RETURNING *"),
    (of_another_kind, "ROLLBACK TO SAVEPOINT a"),
]


@pytest.mark.parametrize(("change", "text"), SABOTAGE)
def test_wrong_reading_is_noticed(parser, monkeypatch, change, text):
    whole = commands.StatementReader.read

    def changed(reader, tokens):
        statement = whole(reader, tokens)
        change(statement)
        return statement

    assert parser.compare.judge(text).differences == ()
    monkeypatch.setattr(commands.StatementReader, "read", changed)
    assert parser.compare.judge(text).differences != ()


def test_wrong_end_of_a_statement_is_noticed(parser, monkeypatch):
    whole = lexer.split_statements
    text = "SELECT 1; DELETE FROM a"
    assert parser.compare.judge(text).differences == ()
    monkeypatch.setattr(lexer, "split_statements", lambda tokens: [[*itertools.chain(*whole(tokens))]])
    assert parser.compare.judge(text).differences != ()


def test_wrong_place_and_value_of_a_literal_are_noticed(parser, monkeypatch):
    text = "SELECT 'a', 'b'"
    whole = lexer.tokenize

    def other_value(text, conforming_strings=True):
        return [token._replace(text="x") if token.kind == lexer.STRING else token for token in whole(text)]

    assert parser.compare.judge(text).differences == ()
    monkeypatch.setattr(lexer, "tokenize", other_value)
    assert parser.compare.judge(text).differences != ()
    monkeypatch.setattr(lexer, "tokenize", lambda text, conforming_strings=True: whole(text)[:-1])
    assert parser.compare.judge(text).differences != ()


def test_wrong_text_is_made_short(parser):
    text = "SELECT 1; UPDATE a SET x = 1 /* c */ WHERE y = 'bad' AND z; SELECT 2"
    assert parser.shrink.shrunk(text, lambda one: "'bad'" in one) == "'bad'"
