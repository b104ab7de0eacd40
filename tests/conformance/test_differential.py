"""Random sequences of messages, valid and invalid, directly and through the proxy.

Each seed is one dialogue. `FUZZ=deep pytest tests/conformance/test_differential.py` runs thousands of them. The seed is
enough to repeat a failure; a failure that was repaired gets a test with a name of its own, here or in the file of its
subject.
"""

import contextlib
import os
import random

import pytest

from protocol import codes, frontend
from protocol.copy_data import CopyData, CopyDone, CopyFail
from tests.conformance.stages import on_postgres_15
from tests.conformance.wire import (
    FLUSH,
    SYNC,
    bind,
    close_portal,
    close_statement,
    describe_portal,
    describe_statement,
    execute,
    parse,
    query,
)

SEEDS, SEEDS_ON_15 = {"fast": (80, 15), "deep": (6000, 2000)}[os.environ.get("FUZZ", "fast")]
MARK = "end of dialogue"

TEXTS = [
    "SELECT id, name FROM items WHERE id < 4 ORDER BY id",
    "SELECT name FROM items WHERE id = 1",
    "SELECT * FROM items ORDER BY id",
    "UPDATE items SET name = 'fuzzed' WHERE id = 1",
    "UPDATE items SET name = name || '!' WHERE id < 3 RETURNING id, name",
    "DELETE FROM items WHERE id = 2",
    "INSERT INTO items (id, name) VALUES (50, 'new') ON CONFLICT (id) DO UPDATE SET name = 'newer'",
    "INSERT INTO items (id) VALUES (1)",
    "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "COMMIT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "PREPARE TRANSACTION 'fuzz'",
    "ROLLBACK PREPARED 'fuzz'",
    "SELECT 1 / (id - 3) FROM items ORDER BY id",
    "SELECT 1 / 0",
    "SELEC",
    "SELECT * FROM nowhere",
    "",
    ";",
    "SELECT",
    "SELECT FROM items WHERE id < 3",
    "SHOW transaction_isolation",
    "SET application_name = 'fuzz'",
    "SET LOCAL TimeZone = 'Asia/Tokyo'",
    "RESET ALL",
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "PREPARE a AS SELECT name FROM items WHERE id = 3",
    "EXECUTE a",
    "DECLARE p CURSOR FOR SELECT id FROM items ORDER BY id",
    "FETCH 2 FROM p",
    "CLOSE p",
    "LISTEN news",
    "NOTIFY news, 'fuzz'",
    "UNLISTEN *",
    "CREATE TEMP TABLE items (id int, name text)",
    "CREATE TEMP TABLE other AS SELECT 1 AS a",
    "SELECT * FROM other",
    "DROP TABLE pg_temp.items",
    "ALTER TABLE public.items ALTER name SET STATISTICS 50",
    "TRUNCATE plain",
    "COPY plain FROM STDIN",
    "COPY items (id, name) FROM STDIN",
    "COPY plain TO STDOUT",
    "COPY (SELECT id FROM items ORDER BY id) TO STDOUT",
    "DO $$BEGIN RAISE NOTICE 'fuzz'; END$$",
    "SELECT shout(name) FROM items WHERE id < 3",
    "CALL nothing()",
    "EXPLAIN (COSTS off) SELECT 1",
    "VACUUM plain",
    "LOCK items",
]
PARAMETRIC = [
    "SELECT $1::int, name FROM items WHERE id = $1",
    "SELECT id, name FROM items WHERE id = $1 OR name = $2",
    "UPDATE items SET name = $1 WHERE id = $2::int",
    "UPDATE items SET name = $1 WHERE id = $2 RETURNING *",
    "INSERT INTO plain VALUES ($1, $2)",
    "SELECT $1",
    "SELECT $2::text",
]
# Bodies that are too short or too long.
MALFORMED = [
    kind + (4 + len(body)).to_bytes(4, "big") + body
    for kind, body in (
        (b"P", b""),
        (b"P", b"x"),
        (b"P", b"x\0SELECT 1\0\0"),
        (b"P", b"\0SELECT 1\0\0\2\0\0\0\x19"),
        (b"B", b""),
        (b"B", b"\0\0\0\0\0\x09"),
        (b"B", b"\0\0\0\0\0\1\xff\xff\xff\xf0\0\0"),
        (b"B", b"\0\0\0\0\0\0\0\0more"),
        (b"E", b"\0"),
        (b"E", b"\0\xff\xff\xff"),
        (b"E", b"\0\0\0\0\0x"),
        (b"D", b""),
        (b"D", b"?\0"),
        (b"C", b"S"),
        (b"C", b"P\0\0"),
        (b"S", b"x"),
        (b"H", b"x"),
        (b"Q", b""),
        (b"Q", b"SELECT"),
        (b"Q", b"SELECT 1\0SELECT 2\0"),
        (b"Q", b"SELECT '\xff'\0"),
        (b"F", b""),
        (b"F", b"\0\0\0\xb1\0\0\0\5"),
    )
]
FATAL = [
    b"p\0\0\0\x09late\0",
    b"d\x80\0\0\0",
    b"!\0\0\0\x04",
    b"R\0\0\0\x08\0\0\0\0",
    b"Z\0\0\0\x05I",
    b"\0\0\0\0\x08",
    b"Q\0\0\0\0",
    b"Q\x80\0\0\0",
    b"P\x7f\xff\xff\xff",
    b"E\0\1\0\0",
]
STATEMENTS, PORTALS = ["", "", "a", "b"], ["", "", "p"]
VALUES = [None, b"1", b"2", b"some", b"", b"\0\0\0\1", b"\xff", b"9" * 20]


class Dialogue:
    """The messages of one seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def messages(self):
        """Random messages in an order that is valid more often than not.

        Nearly any message inside COPY FROM STDIN ends the session. So most messages that may begin a COPY are followed
        by CopyFail, which is ignored in other states.
        """
        copies = False
        for message in self.any_messages():
            yield message
            copies = copies or b"FROM STDIN" in bytes(message)
            if copies and isinstance(message, frontend.Query | frontend.Execute) and self.random.random() < 0.97:
                yield CopyFail(b"not now")

    def any_messages(self):
        steps = [self.simple, self.pipeline, self.pipeline, self.soup, self.copy, self.malformed, self.function]
        weights = [6, 5, 5, 6, 3, 1, 1]
        for step in self.random.choices(steps, weights, k=self.random.randint(2, 14)):
            yield from step()

    def simple(self):
        texts = self.random.choices(TEXTS, k=self.random.choice([1, 1, 1, 2, 3]))
        yield query("; ".join(texts))

    def pipeline(self):
        for _ in range(self.random.randint(1, 3)):
            statement, portal = self.random.choice(STATEMENTS), self.random.choice(PORTALS)
            text = self.random.choice(TEXTS + PARAMETRIC * 4)
            if self.random.random() < 0.7:
                yield parse(text, statement)
            if self.random.random() < 0.3:
                yield describe_statement(statement)
            count = 2 if "$2" in text else int("$1" in text)
            yield self.bound(statement, portal, count)
            if self.random.random() < 0.4:
                yield describe_portal(portal)
            for _ in range(self.random.choice([1, 1, 1, 2])):
                yield execute(portal, self.random.choice([0, 0, 1, 2, -1]))
            if self.random.random() < 0.2:
                yield self.random.choice([FLUSH, SYNC])
        if self.random.random() < 0.9:
            yield SYNC

    def bound(self, statement, portal, count):
        number = count if self.random.random() < 0.95 else self.random.randint(0, 3)
        values = [self.random.choice(VALUES) for _ in range(number)]
        formats = self.random.choice([(), (), (0,), (1,), (0, 1), (2,)])
        results = self.random.choice([(), (), (0,), (1,), (0, 1), (1, 1, 1)])
        return bind(*values, statement=statement, portal=portal, formats=formats, results=results)

    def soup(self):
        statement, portal = self.random.choice(STATEMENTS), self.random.choice(PORTALS)
        one = [
            parse(
                self.random.choice(TEXTS + PARAMETRIC), statement, self.random.choice([(), (), (23,), (25, 23), (0,)])
            ),
            self.bound(statement, portal, self.random.randint(0, 2)),
            describe_statement(statement),
            describe_portal(portal),
            execute(portal, self.random.choice([0, 1, 3])),
            close_statement(statement),
            close_portal(portal),
            SYNC,
            FLUSH,
        ]
        yield from self.random.choices(one, k=self.random.randint(1, 4))

    def copy(self):
        table = self.random.choice(["plain", "items (id, name)"])
        start = query(f"COPY {table} FROM STDIN{self.random.choice(['', '', '; SELECT 2', '; COPY plain FROM STDIN'])}")
        if self.random.random() < 0.4:
            start = bytes(parse(f"COPY {table} FROM STDIN")) + bytes(bind()) + bytes(execute())
        if self.random.random() < 0.9:
            yield bytes(start)
        pieces = [
            CopyData(b"77\trow\n"),
            CopyData(b"78\t"),
            CopyData(b"rest\n"),
            CopyData(b"bad\n"),
            CopyData(b""),
            SYNC,
            FLUSH,
        ]
        yield from self.random.choices(pieces, [5, 1, 1, 1, 1, 1, 1], k=self.random.randint(0, 5))
        yield self.random.choice([CopyDone(), CopyDone(), CopyDone(), CopyFail(b"fuzz"), SYNC])
        if self.random.random() < 0.5:
            yield SYNC

    def malformed(self):
        yield self.random.choice(MALFORMED)

    def function(self):
        arguments = self.random.choices([None, b"\0\0\0\7", b"7"], k=self.random.choice([2, 2, 1]))
        yield frontend.FunctionCall(
            self.random.choice([177, 177, 0]), self.random.choice([(), (1,)]), arguments, codes.BINARY
        )

    def last(self):
        """Messages that end every state a session can be in, so that the last query is answered."""
        return [CopyFail(b"over"), SYNC, CopyFail(b"over"), SYNC, query("ROLLBACK"), query(f"SELECT '{MARK}'")]


def play(seed):
    def script(wire):
        dialogue = Dialogue(seed)
        messages = [*dialogue.messages(), *dialogue.last()]
        with contextlib.suppress(OSError):
            wire.send(b"".join(map(bytes, messages)), chunk=dialogue.random.choice([None, None, 7, 100, 1000]))
        while not wire.kinds.endswith("$") and [MARK.encode()] not in wire.values()[-1:]:
            wire.read_until("DE")
        wire.read_until("Z")
        if not wire.kinds.endswith("$") and dialogue.random.random() < 0.2:
            wire.send(dialogue.random.choice(FATAL))
            wire.read_to_end()

    return script


def certain(wire):
    """The part of the transcript that must be equal: all of it if the last query was answered. If the server ended the
    session before, only that it did: the server's last messages may be lost with the connection."""
    return wire.transcript if [MARK.encode()] in wire.values() else "ended"


# A prepared transaction keeps its locks, so a dialogue may wait for a lock it holds itself.
OPTIONS = "-c lock_timeout=200ms"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_dialogue_is_relayed_unchanged(both, may_go_blind, seed):
    both(play(seed), transcript=certain, options=OPTIONS)


@on_postgres_15
@pytest.mark.parametrize("seed", range(SEEDS_ON_15))
def test_random_dialogue_with_postgresql_15_is_relayed_unchanged(both, may_go_blind, seed):
    both(play(seed), transcript=certain, options=OPTIONS)


def test_most_random_dialogues_reach_their_last_query(both, may_go_blind):
    ends = [
        both(play(seed), transcript=certain, options=OPTIONS).values()[-1:] == [[MARK.encode()]] for seed in range(20)
    ]
    assert sum(ends) >= 16
