"""Hundreds of unusual statements in sequence: after each no key of Redis differs from PostgreSQL, and so many keys are
present that removing everything would not pass."""

from pathlib import Path

import pytest

from tests.e2e.deployment import deploy

pytestmark = pytest.mark.measured

FOLDER = Path(__file__).parent
RULES = [
    {"name": "weather", "key": "id", "value": "city"},
    {"name": "accounts", "key": ["owner", "kind"], "value": ["balance", "note"], "format": "hash"},
    {"name": "measurement", "key": ["id", "day"], "value": ["value"], "format": "json"},
]
WARMTH = 0.85
"""The share of keys that must be present, over all statements, when every table is read after every third one."""


def statements():
    text = (FOLDER / "corpus.sql").read_text()
    return [part.strip() for part in text.split("\n\n")[1:] if part.strip()]


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    schema = (FOLDER / "corpus_tables.sql").read_text()
    directory = tmp_path_factory.mktemp("corpus")
    with deploy(postgres, valkey, directory, schema=schema, rules=RULES) as found:
        yield found


@pytest.fixture
def deployment(running):
    """The original tables, created again through the proxy."""
    session = running.connect()
    names = "public, elsewhere"
    tables = (FOLDER / "corpus_tables.sql").read_text()
    answer = session.simple(f"DROP SCHEMA {names} CASCADE; CREATE SCHEMA public; {tables}")
    assert not answer.errors
    session.close()
    running.settle()
    return running


def needs_simple_query(sql):
    return "; " in sql or sql.endswith(";") or sql.startswith("COPY")


@pytest.mark.parametrize("mode", ["simple", "binary"])
def test_no_key_is_stale_and_most_are_present_after_each_statement(deployment, mode):
    """In order, on one session whose state persists; another session reads after every third statement."""
    session, reader = deployment.connect(), deployment.connect()
    present = possible = errors = 0
    for number, sql in enumerate(statements()):
        answer = getattr(session, "simple" if needs_simple_query(sql) else mode)(sql)
        errors += bool(answer.errors)
        deployment.settle()
        try:
            found = deployment.check()
        except AssertionError as error:
            raise AssertionError(f"after statement {number}: {sql}\n{error}") from error
        if answer.status == "I":
            present += len(found)
            possible += len(deployment.expected())
        if number % 3 == 0 and answer.status == "I":
            for rule in deployment.rules:
                reader.simple(f"SELECT * FROM {rule.table}")
    assert errors < 15, "the corpus is meant to run"
    assert present / possible > WARMTH, f"{present} of {possible} keys were there"
    for rule in deployment.rules:
        reader.simple(f"SELECT * FROM {rule.table}")
    deployment.settle()
    assert deployment.check() == {key.decode() for key in deployment.expected()}, "a read brings every key back"
    session.close()
    reader.close()


def test_corpus_has_more_than_300_statements():
    assert len(statements()) > 300
    assert len(set(statements())) > 250
