"""Turns: a statement followed in the short way and the same followed frame by frame leave nothing different behind."""

from __future__ import annotations

import pytest

from protocol import backend, codes, frontend
from protocol.backend import FieldDescription
from tests.proxy.session.dialogue import BOUND, FIELDS, OID, PARSED, Dialogue, done, error, q, ready, rows

SELECT = "SELECT id, name FROM users WHERE id = 1"
OTHER = "SELECT balance FROM accounts WHERE id = 1"
OTHERS = (backend.RowDescription((FieldDescription(b"balance", 99, 3, 23, 4),)), backend.DataRow([b"1"]))
NAME = backend.RowDescription(FIELDS[1:])
SYNC = frontend.Sync()
DESCRIBE = frontend.Describe(codes.PORTAL, b"")


def parse(text, name=b"", types=()):
    return frontend.Parse(name, text.encode(), types)


def bind(*parameters, name=b"", portal=b"", formats=(), results=()):
    return frontend.Bind(portal, name, formats, list(parameters), results)


def execute(limit=0, *, described=True):
    return (*((DESCRIBE,) if described else ()), frontend.Execute(b"", limit), SYNC)


def prepared(text, description=NAME):
    """What a client and the server say about a named statement ``s`` first."""
    return (
        (parse(text, b"s"), frontend.Describe(codes.PREPARED_STATEMENT, b"s"), SYNC),
        (PARSED, backend.ParameterDescription((23,)), description, ready()),
    )


BEGIN = ((q("BEGIN"),), (done("BEGIN"), ready("T")))
WRITE = ((q("UPDATE users SET name = 'x' WHERE id = 2"),), (done("UPDATE 1"), ready("T")))
PREPARED = prepared("SELECT name FROM users WHERE id = $1")
PREPARED_OTHER = prepared("SELECT balance FROM accounts WHERE id = $1", OTHERS[0])
BY_KEY = "SELECT name FROM users WHERE id = $1"
ANN = backend.DataRow([b"ann"])
NOTICE = backend.NoticeResponse.of("NOTICE", "00000", "x")
ROW = [*rows((1, b"ann")), done("SELECT 1")]

TURNS = {
    "unrelated": [((q(OTHER),), (*OTHERS, done("SELECT 1"), ready()))],
    "no rows": [((q(SELECT),), (*rows(), done("SELECT 0"), ready()))],
    "captured": [((q(SELECT),), (*ROW, ready()))],
    "the same again": [((q(SELECT),), (*ROW, ready()))] * 3,
    "more rows than fill": [((q(SELECT),), (*rows(*[(n, b"x") for n in range(1010)]), done("SELECT 1010"), ready()))],
    "null key and null value": [
        ((q(SELECT),), (*rows((1, None)), backend.DataRow([None, b"x"]), done("SELECT 2"), ready()))
    ],
    "refused": [
        (
            (q("SELECT id FROM users"),),
            (backend.RowDescription(FIELDS[:1]), backend.DataRow([b"1"]), done("SELECT 1"), ready()),
        )
    ],
    "counted only": [((q("SELECT count(*) FROM users"),), (OTHERS[0], OTHERS[1], done("SELECT 1"), ready()))],
    "a stranger": [
        (
            (q(SELECT),),
            (backend.RowDescription((FieldDescription(b"id", OID + 1, 1, 23, 4),)), done("SELECT 0"), ready()),
        )
    ],
    "in a block": [BEGIN, ((q(SELECT),), (*ROW, ready("T")))],
    "behind a write": [BEGIN, WRITE, ((q(SELECT),), (*ROW, ready("T")))],
    "parsed": [((parse(BY_KEY), bind(b"7"), *execute()), (PARSED, BOUND, NAME, ANN, done("SELECT 1"), ready()))],
    "parsed, unrelated": [((parse(OTHER), bind(), *execute()), (PARSED, BOUND, *OTHERS, done("SELECT 1"), ready()))],
    "parsed, not described": [
        ((parse(BY_KEY), bind(b"7"), *execute(described=False)), (PARSED, BOUND, ANN, done("SELECT 1"), ready()))
    ],
    "parsed in a block": [
        BEGIN,
        ((parse(BY_KEY), bind(b"7"), *execute()), (PARSED, BOUND, NAME, ANN, done("SELECT 1"), ready("T"))),
    ],
    "prepared": [PREPARED, ((bind(b"7", name=b"s"), *execute()), (BOUND, NAME, ANN, done("SELECT 1"), ready()))],
    "prepared, unrelated": [
        PREPARED_OTHER,
        ((bind(b"7", name=b"s"), *execute()), (BOUND, *OTHERS, done("SELECT 1"), ready())),
    ],
    "prepared, described once": [
        PREPARED,
        ((bind(b"7", name=b"s"), *execute(described=False)), (BOUND, ANN, done("SELECT 1"), ready())),
    ],
    "prepared, in binary": [
        PREPARED,
        (
            (bind((7).to_bytes(4, "big"), name=b"s", formats=(1,), results=(1,)), *execute(described=False)),
            (BOUND, ANN, done("SELECT 1"), ready()),
        ),
    ],
    "prepared, suspended": [
        PREPARED,
        ((bind(b"7", name=b"s"), *execute(1, described=False)), (BOUND, ANN, backend.PortalSuspended(), ready())),
    ],
    "a key that is not certain": [
        PREPARED,
        ((bind(b"\xff", name=b"s"), *execute()), (BOUND, NAME, done("SELECT 0"), ready())),
    ],
}
"""Exchanges whose last is a turn."""

NO_TURNS = {
    "an update": [((q("UPDATE users SET name = 'x' WHERE id = 2"),), (done("UPDATE 1"), ready()))],
    "two statements": [((q(f"{SELECT}; {SELECT}"),), (*ROW, *ROW, ready()))],
    "an empty query": [((q(""),), (backend.EmptyQueryResponse(), ready()))],
    "a setting": [((q("SET TimeZone = 'UTC'"),), (done("SET"), ready()))],
    "a named portal": [
        PREPARED,
        ((bind(b"7", name=b"s", portal=b"p"), frontend.Execute(b"p"), SYNC), (BOUND, ANN, done("SELECT 1"), ready())),
    ],
    "a named Parse": [
        (
            (parse(BY_KEY, b"n"), bind(b"7", name=b"n"), *execute()),
            (PARSED, BOUND, NAME, ANN, done("SELECT 1"), ready()),
        )
    ],
    "a write that is bound": [
        (
            (parse("DELETE FROM users WHERE id = $1"), bind(b"7"), *execute()),
            (PARSED, BOUND, backend.NoData(), done("DELETE 1"), ready()),
        )
    ],
    "an unknown statement": [((bind(name=b"nobody"), *execute()), (error(), ready()))],
    "no Sync yet": [
        ((parse(BY_KEY), bind(b"7"), DESCRIBE, frontend.Execute(b"")), (PARSED, BOUND, NAME, ANN, done("SELECT 1"))),
        ((SYNC,), (ready(),)),
    ],
}
"""Exchanges whose last is none."""

SURPRISES = {
    "an error": [((q(SELECT),), (error(), ready()))],
    "an error in the middle": [((q(SELECT),), (*ROW[:2], error(), ready()))],
    "an error in a block": [BEGIN, ((q(OTHER),), (error(), ready("E")))],
    "a Parse that fails": [PREPARED, ((parse("SELECT x FROM users"), bind(), *execute()), (error(), ready()))],
    "a Bind that fails": [((parse(BY_KEY), bind(), *execute()), (PARSED, error(), ready()))],
    "an Execute that fails": [PREPARED, ((bind(b"7", name=b"s"), *execute()), (BOUND, NAME, error(), ready()))],
    "a notice before it": [((q(SELECT),), (NOTICE, *ROW, ready()))],
    "a parameter behind it": [((q(SELECT),), (*ROW, backend.ParameterStatus(b"TimeZone", b"UTC"), ready()))],
    "a block that nobody began": [((q(OTHER),), (*OTHERS, done("SELECT 1"), ready("T")))],
    "a block that ended": [BEGIN, ((q(OTHER),), (*OTHERS, done("SELECT 1"), ready("I")))],
    "a count that fails, of a table the catalog does not know": [
        ((parse("SELECT count(*) FROM users"), bind(), *execute()), (PARSED, BOUND, OTHERS[0], error(), ready()))
    ],
    "another tag": [((q(OTHER),), (*OTHERS, done("DELETE 1"), ready()))],
    "suspended in a block": [
        BEGIN,
        ((parse(BY_KEY), bind(b"7"), *execute(1)), (PARSED, BOUND, NAME, ANN, backend.PortalSuspended(), ready("T"))),
    ],
    "two tags": [((q(OTHER),), (*OTHERS, done("SELECT 1"), done("SELECT 1"), ready()))],
    "no description": [((q(SELECT),), (*ROW[1:], ready()))],
    "a row that is cut short": [((q(SELECT),), (ROW[0], b"D\0\0\0\7\0\2\0", done("SELECT 1"), ready()))],
    "a row without a length": [((q(SELECT),), (ROW[0], b"D\0\0\0\0", done("SELECT 1"), ready()))],
    "a row behind the end": [((q(SELECT),), (ROW[0], b"D\0\0\1\0", done("SELECT 1"), ready()))],
    "an answer to nothing": [((q(SELECT),), (*ROW, ready(), *ROW, ready()))],
}
"""Exchanges whose last begins as a turn, and is not answered like one."""


def play(exchanges, *, short):
    """The dialogue, chunk by chunk or byte by byte; what it left behind, and whether its last exchange began a turn."""
    d = Dialogue()
    turn = False
    for said, answered in exchanges:
        d.sink.seq += 1
        if short:
            d.client(*said)
            turn = d.session._pipeline.chunk is not None
            d.server(*answered)
        else:
            for byte in b"".join(map(bytes, said)):
                d.session.frontend(bytes([byte]))
            for byte in b"".join(map(bytes, answered)):
                d.session.backend(bytes([byte]))
    return d, turn


def left(d):
    """Everything of a session that may matter later. Of a portal that has ended nothing does."""
    session, names, buffer = d.session, d.session._objects, d.session._outcomes.buffer
    start = buffer.start and buffer.start[0]
    return {
        "changes": [(change.kind, change.key, change.value, change.seq) for change in d.sink.changes],
        "counted": (dict(d.counts.statements), dict(d.counts.unfilled)),
        "statements": {name: (known.text, known.types, known.description) for name, known in names.statements.items()},
        "portals": set(names.portals),
        "buffer": (len(buffer.pending), buffer.dirty, buffer.explicit, start),
        "session": (session.blinded, session.idle, session.outstanding, session._replies.status),
        "catalog": d.database.due_at,
        "reasons": d.reasons,
    }


@pytest.mark.parametrize("exchanges", TURNS.values(), ids=TURNS)
def test_a_turn(exchanges):
    d, turn = play(exchanges, short=True)
    assert turn
    assert d.session._at_rest, "it was followed in the short way to its end"
    assert left(d) == left(play(exchanges, short=False)[0])


@pytest.mark.parametrize("exchanges", NO_TURNS.values(), ids=NO_TURNS)
def test_no_turn(exchanges):
    d, turn = play(exchanges, short=True)
    assert not turn
    assert left(d) == left(play(exchanges, short=False)[0])


@pytest.mark.parametrize("exchanges", SURPRISES.values(), ids=SURPRISES)
def test_a_turn_that_is_none(exchanges):
    d, turn = play(exchanges, short=True)
    assert turn
    assert left(d) == left(play(exchanges, short=False)[0])


@pytest.mark.parametrize("exchanges", TURNS.values(), ids=TURNS)
def test_a_turn_that_is_interrupted(exchanges):
    """By the client, who says more before the answer; the answers come in one chunk."""
    (said, answered) = exchanges[-1]
    more = ((q("UPDATE users SET name = 'y' WHERE id = 3"),), (done("UPDATE 1"), answered[-1]))
    d, _ = play(exchanges[:-1], short=True)
    d.sink.seq += 1
    d.client(*said)
    assert d.session.outstanding
    assert not d.session.idle
    d.sink.seq += 1
    d.client(*more[0])
    d.server(*answered, *more[1])
    assert left(d) == left(play([*exchanges, more], short=False)[0])


@pytest.mark.parametrize("exchanges", TURNS.values(), ids=TURNS)
def test_a_turn_whose_connection_is_lost(exchanges):
    ends = []
    for short in (True, False):
        d, _ = play(exchanges[:-1], short=short)
        d.sink.seq += 1
        said = b"".join(map(bytes, exchanges[-1][0]))
        if short:
            d.session.frontend(said)
        else:
            for byte in said:
                d.session.frontend(bytes([byte]))
        d.session.closed(backend_ended=False)
        ends.append(d.got())
    assert ends[0] == ends[1]


def test_what_an_unnamed_statement_is_after_a_turn():
    d, _ = play(TURNS["parsed"], short=True)
    d.got()
    d.client(bind(b"8"), *execute()).server(BOUND, NAME, ANN, done("SELECT 1"), ready())
    assert d.got() == ["FILL users:8=ann"]
    d.client(q(OTHER)).server(*OTHERS, done("SELECT 1"), ready())
    assert b"" not in d.session._objects.statements, "a Query has destroyed it"


def test_a_cut_chunk_is_no_turn():
    d = Dialogue()
    said = bytes(q(SELECT))
    d.session.frontend(said[:9])
    assert not d.session._pipeline.chunk
    d.session.frontend(said[9:])
    d.server(*ROW, ready())
    assert d.got() == ["FILL users:1=ann"]
    d.client(q(SELECT))
    assert d.session._pipeline.chunk, "and the next may be one again"


def test_a_cut_answer_is_none():
    d = Dialogue()
    answered = b"".join(map(bytes, [*ROW, ready()]))
    for cut in range(1, len(answered)):
        d.client(q(SELECT))
        d.session.backend(answered[:cut])
        d.session.backend(answered[cut:])
        assert d.got() == ["FILL users:1=ann"], cut
        assert d.session.idle


def test_a_client_that_has_said_goodbye_is_asked_nothing():
    d = Dialogue()
    d.database.due_at = 0
    assert d.session.wants_catalog() is not None
    d.database.answered(None, 0)
    d.database._retry_at = 0
    d.client(q(SELECT)).server(*ROW, ready())
    d.client(frontend.Terminate())
    assert not d.session.idle
    assert d.session.wants_catalog() is None


def test_new_rules_end_what_was_known():
    d = Dialogue()
    d.client(q(SELECT)).server(*ROW, ready())
    d.client(q(SELECT))
    d.database.configure(d.database.rules)
    d.server(*ROW, ready())
    d.client(q(SELECT))
    assert not d.session._pipeline.chunk, "there is no catalog"
    d.server(*ROW, ready())
    assert d.got() == ["FILL users:1=ann"]


def test_a_setting_ends_what_was_known():
    d = Dialogue()
    d.client(q(SELECT)).server(*ROW, ready())
    d.client(q("SET search_path = other"))
    d.server(done("SET"), backend.ParameterStatus(b"search_path", b"other"), ready())
    d.got()
    d.client(q(SELECT)).server(*ROW, ready())
    assert d.got() == [], "the name means another table now"


def test_update_is_stored_though_a_read_the_fast_path_declined_had_failed():
    """Its RowDescription names a table that the catalog does not know: only rows that come make the catalog be asked
    again, so what the server described before it failed must leave the next write as certain as it was."""
    d = Dialogue()
    d.client(parse("SELECT count(*) FROM users"), bind(), *execute())
    d.server(PARSED, BOUND, OTHERS[0], error(), ready())
    d.client(q("UPDATE users SET name = 'x' WHERE id = 2")).server(done("UPDATE 1"), ready())
    assert d.got() == ["STORE users:2=x"]
