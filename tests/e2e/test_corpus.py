"""Hundreds of odd statements one after another: after each of them no key of Redis differs from PostgreSQL, and so many
keys are there that "remove everything" would not do."""

from pathlib import Path

import pytest

from tests.e2e import deployment as scene

FOLDER = Path(__file__).parent
RULES = [
    {"name": "weather", "key": "id", "value": "city"},
    {"name": "accounts", "key": ["owner", "kind"], "value": ["balance", "note"], "format": "hash"},
    {"name": "measurement", "key": ["id", "day"], "value": ["value"], "format": "json"},
]
WARMTH = 0.85
"""How many of the keys that could be there must be, over all statements, if a reader comes by after every third."""


def statements():
    text = (FOLDER / "corpus.sql").read_text()
    return [part.strip() for part in text.split("\n\n")[1:] if part.strip()]


@pytest.fixture(scope="module")
def running(postgres, valkey, tmp_path_factory):
    schema = (FOLDER / "corpus_tables.sql").read_text()
    directory = tmp_path_factory.mktemp("corpus")
    with scene.scene(postgres, valkey, directory, schema=schema, rules=RULES) as found:
        yield found


@pytest.fixture
def stage(running):
    """The tables as they were at first, made anew through the proxy."""
    session = running.connect()
    names = "public, elsewhere"
    tables = (FOLDER / "corpus_tables.sql").read_text()
    answer = session.simple(f"DROP SCHEMA {names} CASCADE; CREATE SCHEMA public; {tables}")
    assert not answer.errors
    session.close()
    running.settle()
    return running


def is_several(sql):
    return "; " in sql or sql.endswith(";") or sql.startswith("COPY")


@pytest.mark.parametrize("way", ["simple", "binary"])
def test_the_corpus(stage, way):
    """In order, on one session that goes through all its states; another reads after every third statement."""
    session, reader = stage.connect(), stage.connect()
    present = possible = errors = 0
    for number, sql in enumerate(statements()):
        answer = getattr(session, "simple" if is_several(sql) else way)(sql)
        errors += bool(answer.errors)
        stage.settle()
        try:
            found = stage.check()
        except AssertionError as error:
            raise AssertionError(f"after statement {number}: {sql}\n{error}") from error
        if answer.status == "I":
            present += len(found)
            possible += len(stage.expected())
        if number % 3 == 0 and answer.status == "I":
            for rule in stage.rules:
                reader.simple(f"SELECT * FROM {rule.table}")
    assert errors < 15, "the corpus is meant to run"
    assert present / possible > WARMTH, f"{present} of {possible} keys were there"
    for rule in stage.rules:
        reader.simple(f"SELECT * FROM {rule.table}")
    stage.settle()
    assert stage.check() == {key.decode() for key in stage.expected()}, "a read brings every key back"
    session.close()
    reader.close()


def test_there_are_hundreds():
    assert len(statements()) > 300
    assert len(set(statements())) > 250
