"""Random dialogues, followed by two sessions: one that may take the fast path and one that may not.

After every chunk of either peer they must not differ in anything that matters: changes, counts, prepared statements and
portals, the transaction, what the relay is told, and whether the catalog is certain. Each dialogue is what a client and
a ``ModelServer`` say to each other, cut and run together at random, with errors, notices and DDL of other sessions.

Left out is a catalog that is replaced between a request and its answer: which of the two catalogs a plan is made by may
then differ, and neither fills wrongly, because what has changed in between flushes with a newer date.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from protocol import backend, codes, frontend
from tests.depth import depth, patient
from tests.proxy.session.dialogue import FIELDS, Dialogue, Sink, state
from tests.proxy.session.model_server import AGAIN, BALANCE, COUNT, ModelServer, Statement

if TYPE_CHECKING:
    from protocol.message import Message

ANN, BOB, NAMELESS, KEYLESS = (b"1", b"ann"), (b"2", b"bob"), (b"3", None), (None, b"x")
READS = [
    Statement("SELECT id, name FROM users", fields=FIELDS, rows=(ANN, BOB, NAMELESS, KEYLESS)),
    Statement("SELECT id, name FROM users WHERE id = 1", fields=FIELDS, rows=(ANN,)),
    Statement("SELECT name FROM users WHERE id = 1", fields=FIELDS[1:], rows=((b"ann",),)),
    Statement("SELECT id FROM users", fields=FIELDS[:1], rows=((b"1",), (b"2",))),
    Statement("SELECT id, name FROM users WHERE id = 9", fields=FIELDS),
    Statement("SELECT count(*) FROM users", fields=COUNT, rows=((b"2",),)),
    Statement("SELECT count(*) AS odd FROM users", fields=BALANCE, rows=((b"2",),)),
    Statement("SELECT * FROM users", fields=AGAIN, rows=(ANN,)),
    Statement("SELECT balance FROM accounts", fields=BALANCE, rows=((b"1",), (b"2",), (b"3",))),
    Statement("SELECT 1", fields=COUNT, rows=((b"1",),)),
    Statement("SELECT", rows=((),)),
    Statement("TABLE users", fields=FIELDS, rows=(ANN, ANN)),
    Statement("SELECT unknown_function()", fields=COUNT, rows=((b"1",),)),
    Statement("SELECT id, name FROM users WHERE name = 'é'", fields=FIELDS, rows=(ANN,)),
]
PREPARABLE = [
    *READS[:9],
    Statement("SELECT name FROM users WHERE id = $1", fields=FIELDS[1:], rows=((b"ann",), (b"bob",))),
    Statement("SELECT id, name FROM users WHERE id = $1", fields=FIELDS, rows=(ANN,)),
    Statement("SELECT balance FROM accounts WHERE id = $1", fields=BALANCE, rows=((b"1",),)),
    Statement("UPDATE users SET name = 'p' WHERE id = $1", "UPDATE 1"),
    Statement("DELETE FROM users WHERE id = $1 RETURNING id", "DELETE {}", FIELDS[:1], ((b"1",), (b"2",))),
]
WRITES = [
    Statement("UPDATE users SET name = 'a' WHERE id = 2", "UPDATE 1"),
    Statement("UPDATE users SET name = 'a' WHERE name = 'b'", "UPDATE 3"),
    Statement("UPDATE users SET name = upper(name) RETURNING id, name", "UPDATE {}", FIELDS, (ANN, BOB)),
    Statement("INSERT INTO users (id, name) VALUES (4, 'x')", "INSERT 0 1"),
    Statement("DELETE FROM accounts", "DELETE 5"),
]
TRANSACTIONS = [
    Statement("BEGIN", "BEGIN", status="T"),
    Statement("COMMIT", "COMMIT", status="I"),
    Statement("ROLLBACK", "ROLLBACK", status="I"),
    Statement("SAVEPOINT s", "SAVEPOINT"),
    Statement("ROLLBACK TO s", "ROLLBACK"),
    Statement("RELEASE s", "RELEASE"),
]
OTHERS = [
    Statement("ALTER TABLE users ADD COLUMN x int", "ALTER TABLE"),
    Statement("CREATE TEMP TABLE users (id int, name text)", "CREATE TABLE"),
    Statement("DISCARD ALL", "DISCARD ALL"),
    Statement("SET search_path = other", "SET", parameter=(b"search_path", b"other")),
    Statement("SET search_path = public", "SET", parameter=(b"search_path", b"public")),
    Statement("SET client_encoding = 'SJIS'", "SET", parameter=(b"client_encoding", b"SJIS")),
    Statement("SET client_encoding = 'UTF8'", "SET", parameter=(b"client_encoding", b"UTF8")),
    Statement("PREPARE p AS SELECT id, name FROM users WHERE id = $1", "PREPARE"),
    Statement("EXECUTE p (1)", fields=FIELDS, rows=(ANN,)),
    Statement("DEALLOCATE ALL", "DEALLOCATE ALL"),
    Statement("DECLARE c CURSOR FOR SELECT id, name FROM users", "DECLARE CURSOR"),
    Statement("FETCH 2 FROM c", "FETCH {}", FIELDS, (ANN, BOB)),
    Statement("DO 'x'", "DO"),
]
STATEMENTS = {one.text.encode(): one for one in [*READS, *PREPARABLE, *WRITES, *TRANSACTIONS, *OTHERS]}


def known(text: bytes) -> list[Statement]:
    return [STATEMENTS[part] for part in text.split(b"; ") if part]


simple = st.one_of(
    st.sampled_from(READS), st.sampled_from(READS), st.sampled_from(WRITES), st.sampled_from(TRANSACTIONS),
    st.sampled_from(OTHERS),
)  # fmt: skip
queries = st.lists(simple, max_size=3).map(lambda found: [frontend.Query("; ".join(s.text for s in found).encode())])
single_queries = simple.map(lambda found: [frontend.Query(found.text.encode())])
names = st.sampled_from([b"", b"s", b"t"])
portals = st.sampled_from([b"", b"", b"", b"q"])


@st.composite
def extended(draw: st.DrawFn) -> list[Message]:
    """Some messages of the extended protocol up to Sync, most often in the order drivers send them."""
    messages: list[Message] = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        name, portal = draw(names), draw(portals)
        if draw(st.booleans()):
            statement = draw(st.one_of(st.sampled_from(PREPARABLE), simple))
            messages.append(frontend.Parse(name, statement.text.encode(), draw(st.sampled_from([(), (23,)]))))
            if draw(st.sampled_from([False, False, True])):
                messages.append(frontend.Describe(codes.PREPARED_STATEMENT, name))
        if draw(st.sampled_from([True, True, True, False])):
            value = draw(st.sampled_from([b"1", b"7", b"x", None]))
            results = draw(st.sampled_from([(), (), (0,), (1,), (0, 0, 0)]))
            messages.append(frontend.Bind(portal, name, (), [value], results))
        if draw(st.booleans()):
            messages.append(frontend.Describe(codes.PORTAL, portal))
        if draw(st.sampled_from([True, True, True, False])):
            messages.append(frontend.Execute(portal, draw(st.sampled_from([0, 0, 0, 1, 2]))))
        if draw(st.sampled_from([False] * 6 + [True])):
            kind = draw(st.sampled_from([codes.PREPARED_STATEMENT, codes.PORTAL]))
            messages.append(frontend.Close(kind, name if kind == codes.PREPARED_STATEMENT else portal))
    return [*messages, frontend.Sync()]


@st.composite
def bound_reads(draw: st.DrawFn) -> list[Message]:
    """One statement as drivers bind it, unnamed or prepared before."""
    name = draw(names)
    statement = draw(st.sampled_from(PREPARABLE))
    parse = [frontend.Parse(name, statement.text.encode())] if not name or draw(st.booleans()) else []
    describe = [frontend.Describe(codes.PORTAL, b"")] if draw(st.booleans()) else []
    bind = frontend.Bind(b"", name, (), [draw(st.sampled_from([b"1", b"7", b"x", None]))])
    return [*parse, bind, *describe, frontend.Execute(b"", draw(st.sampled_from([0, 0, 0, 1, 2]))), frontend.Sync()]


asynchronous = st.sampled_from(
    [
        backend.NoticeResponse.of("NOTICE", "00000", "x"),
        backend.ParameterStatus(b"application_name", b"x"),
        backend.ParameterStatus(b"in_hot_standby", b"on"),
        backend.ParameterStatus(b"in_hot_standby", b"off"),
        backend.NotificationResponse(1, b"c", b"p"),
    ]
)


executions = st.just([frontend.Execute(b"", 0), frontend.Sync()])
"""The unnamed portal is run again."""
conversations = st.one_of(
    single_queries, single_queries, queries, extended(), bound_reads(), bound_reads(), bound_reads(), executions
)


@dataclass
class Exchange:
    """What the client sends at once, and all that the server answers to it."""

    sent: bytes
    answered: bytes


@st.composite
def dialogues(draw: st.DrawFn) -> list[Exchange]:
    server = ModelServer()
    exchanges = []
    said: list[list[Message]] = draw(st.lists(conversations, min_size=1, max_size=8))
    if draw(st.booleans()):
        said.insert(0, [frontend.Query(b"BEGIN")])
    for messages in said:
        failing = draw(st.sampled_from([-1] * 6 + [*range(len(messages))]))
        replies: list[Message] = []
        for number, message in enumerate(messages):
            replies += server.answer(message, known, fails=number == failing)
        if draw(st.sampled_from([False] * 9 + [True])):
            replies.insert(draw(st.integers(0, len(replies))), draw(asynchronous))
        exchanges.append(Exchange(b"".join(map(bytes, messages)), b"".join(map(bytes, replies))))
    return exchanges


whole: st.SearchStrategy[list[float]] = st.just([])
cuts = st.one_of(
    whole, whole, whole, whole, whole, st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=2)
)
"""Where a chunk is cut, as parts of its length: nowhere, in most cases."""


def pieces(data: bytes, where: list[float]) -> list[bytes]:
    ends = sorted({0, len(data), *(round(part * len(data)) for part in where)})
    return [data[start:end] for start, end in pairwise(ends)]


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """The events of a dialogue in an order that is possible: chunks of both peers, and what else happens meanwhile."""
    events: list[tuple[str, bytes]] = []
    owed = b""
    for exchange in draw(dialogues()):
        events += [("client", piece) for piece in pieces(exchange.sent, draw(cuts))]
        owed += exchange.answered
        if draw(st.sampled_from([False] * 5 + [True])):
            events.append((draw(st.sampled_from(["ddl begins", "ddl ends", "rules change"])), b""))
        if draw(st.sampled_from([False] * 7 + [True])):
            continue  # the client sends on before it is answered
        events += [("server", piece) for piece in pieces(owed, draw(cuts))]
        owed = b""
    if owed and draw(st.booleans()):
        events += [("server", piece) for piece in pieces(owed, draw(cuts))]
    if draw(st.sampled_from([False, False, True])):
        events.append(
            ("server", draw(st.sampled_from([b"\xff\0\0\0\4", b"1\0\0\0\4", b"D\0\0\0\6\0\0", b"T\0\0\0\4"])))
        )
    return [*events, (draw(st.sampled_from(["closed", "lost"])), b"")]


class Blocks(Sink):
    """A backlog that blocks keys, for ``before_commit``."""

    def block(self, changes):
        self.blocked.append(sorted((change.kind, change.key) for change in changes))
        return Block()

    def release(self, block):
        self.blocked.append("released")

    def __init__(self):
        super().__init__()
        self.blocked: list[object] = []


class Block:
    async def wait(self, seconds):
        return True


class Player:
    """One session that the events happen to."""

    def __init__(self, *, fast, before_commit):
        self.sink = Blocks()
        self.dialogue = Dialogue(before_commit=before_commit, sink=self.sink)
        self.taken = 0
        self.waits = 0
        self._ddl = 0
        if not fast:
            self.dialogue.session._fast_path = NoFastPath()  # type: ignore[assignment]  # takes nothing

    def play(self, what, data):
        d = self.dialogue
        session = d.session
        if what == "client":
            d.sink.seq += 1
            session.frontend(data)
            if session.before_forwarding is not None:
                self.waits += 1
                session.before_forwarding.close()  # type: ignore[attr-defined]  # a coroutine, which is not awaited here
        elif what == "server":
            taken = session._pipeline.chunk is not None
            session.backend(data)
            self.taken += taken and session._at_rest
            d.learn()
        elif what == "ddl begins":
            self._ddl += 1
            d.database.ddl_began()
        elif what == "ddl ends" and self._ddl:
            self._ddl -= 1
            d.database.ddl_ended()
        elif what == "rules change" and not session.outstanding:
            d.database.configure(d.database.rules)
        elif what in ("closed", "lost"):
            session.closed(backend_ended=what == "closed")


class NoFastPath:
    def takes(self, data):
        return False


@patient
@pytest.mark.parametrize("before_commit", [False, True])
def test_session_is_the_same_with_and_without_the_fast_path(before_commit):
    taken = 0

    @settings(max_examples=depth(80, 5_000), deadline=None, suppress_health_check=list(HealthCheck))
    @given(schedules())
    def run(events):
        nonlocal taken
        fast = Player(fast=True, before_commit=before_commit)
        slow = Player(fast=False, before_commit=before_commit)
        for what, data in events:
            fast.play(what, data)
            slow.play(what, data)
            assert state(fast.dialogue) == state(slow.dialogue), (what, data)
            assert (fast.sink.blocked, fast.waits) == (slow.sink.blocked, slow.waits)
            fast.sink.changes.clear()
            slow.sink.changes.clear()
        assert slow.taken == 0
        taken += fast.taken
        event(f"fast path taken {min(fast.taken, 3)} times")
        if fast.dialogue.reasons:
            event("blind")

    run()
    assert taken > depth(3, 1_000), "the dialogues have hardly a read for the fast path"
