"""FastPath: a statement that it follows leaves nothing else behind than the same statement followed frame by frame."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol import backend, codes, frontend
from protocol.backend import FieldDescription
from tests.proxy.session.dialogue import BOUND, FIELDS, OID, PARSED, Dialogue, done, error, q, ready, rows, state

SELECT = "SELECT id, name FROM users WHERE id = 1"
OTHER = "SELECT balance FROM accounts WHERE id = 1"
OTHERS = (backend.RowDescription((FieldDescription(b"balance", 99, 3, 23, 4),)), backend.DataRow([b"1"]))
NAME = backend.RowDescription(FIELDS[1:])
BINARY = tuple(replace(field, format=codes.BINARY) for field in FIELDS)
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

FOLLOWED = {
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
    "an unknown table": [
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
    "prepared, unrelated, not described": [
        PREPARED_OTHER,
        ((bind(b"7", name=b"s"), *execute(described=False)), (BOUND, OTHERS[1], done("SELECT 1"), ready())),
    ],
    "a value that is not certain": [
        (
            (parse("SELECT id, name FROM users"), bind(results=(1,)), *execute()),
            (PARSED, BOUND, backend.RowDescription(BINARY), backend.DataRow([b"1", b"ann"]), done("SELECT 1"), ready()),
        )
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
"""Exchanges whose last is followed on the fast path to its end."""

NOT_TAKEN = {
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
    "an unknown statement": [((bind(name=b"unknown"), *execute()), (error(), ready()))],
    "no Sync yet": [
        ((parse(BY_KEY), bind(b"7"), DESCRIBE, frontend.Execute(b"")), (PARSED, BOUND, NAME, ANN, done("SELECT 1"))),
        ((SYNC,), (ready(),)),
    ],
}
"""Exchanges whose last request the fast path does not take."""

DECLINED = {
    "a block of which the beginning was not seen": [
        ((q(""),), (backend.EmptyQueryResponse(), ready("T"))),
        ((q(SELECT),), (*ROW, ready("T"))),
    ],
    "an error": [((q(SELECT),), (error(), ready()))],
    "an error in the middle": [((q(SELECT),), (*ROW[:2], error(), ready()))],
    "an error in a block": [BEGIN, ((q(OTHER),), (error(), ready("E")))],
    "a Parse that fails": [PREPARED, ((parse("SELECT x FROM users"), bind(), *execute()), (error(), ready()))],
    "a Bind that fails": [((parse(BY_KEY), bind(), *execute()), (PARSED, error(), ready()))],
    "an Execute that fails": [PREPARED, ((bind(b"7", name=b"s"), *execute()), (BOUND, NAME, error(), ready()))],
    "a notice before it": [((q(SELECT),), (NOTICE, *ROW, ready()))],
    "a parameter behind it": [((q(SELECT),), (*ROW, backend.ParameterStatus(b"TimeZone", b"UTC"), ready()))],
    "a block that was not seen to begin": [((q(OTHER),), (*OTHERS, done("SELECT 1"), ready("T")))],
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
"""Exchanges whose last request the fast path takes, and whose answer it declines."""


def play(exchanges, *, fast):
    """The dialogue, in whole chunks or byte by byte; and whether the fast path took its last request."""
    d = Dialogue()
    taken = False
    for sent, answered in exchanges:
        d.sink.seq += 1
        if fast:
            d.client(*sent)
            taken = d.session._pipeline.chunk is not None
            d.server(*answered)
        else:
            for byte in b"".join(map(bytes, sent)):
                d.session.frontend(bytes([byte]))
            for byte in b"".join(map(bytes, answered)):
                d.session.backend(bytes([byte]))
    return d, taken


@pytest.mark.parametrize("exchanges", FOLLOWED.values(), ids=FOLLOWED)
def test_plain_read_is_followed_to_its_end_and_leaves_the_same(exchanges):
    d, taken = play(exchanges, fast=True)
    assert taken
    assert d.session._at_rest, "it was followed on the fast path to its end"
    assert state(d) == state(play(exchanges, fast=False)[0])


@pytest.mark.parametrize("exchanges", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_request_that_is_no_plain_read_is_not_taken(exchanges):
    d, taken = play(exchanges, fast=True)
    assert not taken
    assert state(d) == state(play(exchanges, fast=False)[0])


@pytest.mark.parametrize("exchanges", DECLINED.values(), ids=DECLINED)
def test_answer_that_is_not_plain_is_declined_and_leaves_the_same(exchanges):
    d, taken = play(exchanges, fast=True)
    assert taken
    assert state(d) == state(play(exchanges, fast=False)[0])


@pytest.mark.parametrize("exchanges", FOLLOWED.values(), ids=FOLLOWED)
def test_read_leaves_the_same_if_the_client_sends_more_before_its_answer(exchanges):
    (sent, answered) = exchanges[-1]
    more = ((q("UPDATE users SET name = 'y' WHERE id = 3"),), (done("UPDATE 1"), answered[-1]))
    d, _ = play(exchanges[:-1], fast=True)
    d.sink.seq += 1
    d.client(*sent)
    assert d.session.outstanding
    assert not d.session.idle
    d.sink.seq += 1
    d.client(*more[0])
    d.server(*answered, *more[1])
    assert state(d) == state(play([*exchanges, more], fast=False)[0])


@pytest.mark.parametrize("exchanges", FOLLOWED.values(), ids=FOLLOWED)
def test_read_leaves_the_same_if_the_connection_is_lost_before_its_answer(exchanges):
    ends = []
    for fast in (True, False):
        d, _ = play(exchanges[:-1], fast=fast)
        d.sink.seq += 1
        sent = b"".join(map(bytes, exchanges[-1][0]))
        if fast:
            d.session.frontend(sent)
        else:
            for byte in sent:
                d.session.frontend(bytes([byte]))
        d.session.closed(backend_ended=False)
        ends.append(d.got())
    assert ends[0] == ends[1]


def test_unnamed_statement_can_be_bound_again_until_a_query_destroys_it():
    d, _ = play(FOLLOWED["parsed"], fast=True)
    d.got()
    d.client(bind(b"8"), *execute()).server(BOUND, NAME, ANN, done("SELECT 1"), ready())
    assert d.got() == ["FILL users:8=ann"]
    d.client(q(OTHER)).server(*OTHERS, done("SELECT 1"), ready())
    assert b"" not in d.session._objects.statements


def test_request_in_two_chunks_is_not_taken_and_the_next_may_be():
    d = Dialogue()
    sent = bytes(q(SELECT))
    d.session.frontend(sent[:9])
    assert d.session._pipeline.chunk is None
    d.session.frontend(sent[9:])
    d.server(*ROW, ready())
    assert d.got() == ["FILL users:1=ann"]
    d.client(q(SELECT))
    assert d.session._pipeline.chunk is not None


def test_answer_in_two_chunks_fills_wherever_it_is_cut():
    d = Dialogue()
    answered = b"".join(map(bytes, [*ROW, ready()]))
    for cut in range(1, len(answered)):
        d.client(q(SELECT))
        d.session.backend(answered[:cut])
        d.session.backend(answered[cut:])
        assert d.got() == ["FILL users:1=ann"], cut
        assert d.session.idle


def test_rows_of_two_rules_are_followed_frame_by_frame():
    d = Dialogue()
    (bound,) = d.database.catalog.bound
    other = replace(bound, rule=replace(bound.rule, label="other"))
    link = d.database.catalog.links[OID][0]
    d.database.catalog = replace(
        d.database.catalog, bound=(bound, other), links={OID: (link, replace(link, bound=other))}
    )
    d.client(q(SELECT))
    assert d.session._pipeline.chunk is not None
    d.server(*ROW, ready())
    assert d.got() == ["FILL users:1=ann", "FILL users:1=ann"]


def test_catalog_is_not_asked_for_over_a_session_whose_client_has_terminated():
    d = Dialogue()
    d.database.due_at = 0
    assert d.session.wants_catalog() is not None
    d.database.answered(None, 0)
    d.database._retry_at = 0
    d.client(q(SELECT)).server(*ROW, ready())
    d.client(frontend.Terminate())
    assert not d.session.idle
    assert d.session.wants_catalog() is None


def test_request_is_not_taken_while_there_is_no_catalog():
    d = Dialogue()
    d.client(q(SELECT)).server(*ROW, ready())
    d.client(q(SELECT))
    d.database.configure(d.database.rules)
    d.server(*ROW, ready())
    d.client(q(SELECT))
    assert d.session._pipeline.chunk is None
    d.server(*ROW, ready())
    assert d.got() == ["FILL users:1=ann"]


def test_remembered_query_is_planned_again_after_a_setting():
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
