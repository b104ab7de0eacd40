"""Requests: what is noted of each message of the client, also where it is too long to be looked at."""

from __future__ import annotations

import pytest

from protocol import codes, frontend
from proxy.session.pending_requests import (
    BindRequest,
    CloseRequest,
    DescribeRequest,
    ExecuteRequest,
    FunctionCallRequest,
    ParseRequest,
    QueryRequest,
    SyncRequest,
)
from proxy.session.pipeline import Desynchronized
from proxy.session.session import CAPACITY
from tests.proxy.session.dialogue import BOUND, PARSED, Dialogue, done, q, ready

SYNC = frontend.Sync()
LONG = b"x" * CAPACITY


def noted(*messages):
    """The records of these messages."""
    d = Dialogue()
    d.sink.seq = 7
    d.client(*messages)
    assert d.reasons == []
    return list(d.session._pipeline.outstanding())


def test_each_message_is_noted_with_what_its_answer_needs():
    found = noted(
        frontend.Parse(b"s", b"SELECT 1", (23,)),
        frontend.Bind(b"p", b"s", (), [b"1"]),
        frontend.Describe(codes.PORTAL, b"p"),
        frontend.Execute(b"p", 5),
        frontend.Close(codes.PREPARED_STATEMENT, b"s"),
        SYNC,
        frontend.FunctionCall(1, (), [], 0),
        q("SELECT 1; SELECT 2"),
    )
    parse, bind, describe, execute, close, sync, call, query = found
    assert isinstance(parse, ParseRequest)
    assert (parse.name, parse.statement.text, parse.statement.types) == (b"s", b"SELECT 1", (23,))
    assert isinstance(bind, BindRequest)
    assert (bind.portal, bind.statement) == (b"p", b"s")
    assert isinstance(describe, DescribeRequest)
    assert (describe.kind, describe.name) == (codes.PORTAL, b"p")
    assert isinstance(execute, ExecuteRequest)
    assert execute.portal == b"p"
    assert isinstance(close, CloseRequest)
    assert (close.kind, close.name) == (codes.PREPARED_STATEMENT, b"s")
    assert isinstance(sync, SyncRequest)
    assert isinstance(call, FunctionCallRequest)
    assert isinstance(query, QueryRequest)
    assert (query.text, len(query.plans), query.current) == (b"SELECT 1; SELECT 2", 2, 0)
    assert {one.seq for one in found} == {7}
    assert [one.size for one in found if isinstance(one, (SyncRequest, FunctionCallRequest))] == [0, 0]
    assert bind.size == len(bind.body or b"")


@pytest.mark.parametrize("message", [q("DROP TABLE users"), frontend.Parse(b"", b"DROP TABLE users")])
def test_ddl_makes_the_catalog_uncertain_when_it_is_forwarded(message):
    d = Dialogue().client(message)
    assert not d.database.certain


@pytest.mark.parametrize(
    "message",
    [b"B\0\0\0\5x", b"B\0\0\0\6x\0", b"E\0\0\0\5x", b"P\0\0\0\5x", b"D\0\0\0\4", b"C\0\0\0\6xx"],
    ids=["Bind", "Bind without a statement", "Execute", "Parse", "Describe", "Close"],
)
def test_message_that_is_cut_short_blinds_the_session(message):
    d = Dialogue().client(message)
    assert d.session.blinded
    assert d.reasons[0].startswith("MessageError: ")


def test_client_that_sent_terminate_leaves():
    d = Dialogue().client(frontend.Terminate())
    assert not d.session.idle


def test_query_too_long_to_look_at_flushes():
    d = Dialogue()
    d.client(q("SELECT '" + "x" * CAPACITY + "'")).server(done("SELECT 1"), ready())
    assert d.got() == ["FLUSH "]
    assert not d.session.blinded


def test_write_whose_parameters_are_too_long_to_look_at_flushes():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = $2"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"x" * CAPACITY, b"3"]), frontend.Execute(b""))
    d.client(frontend.Sync()).server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]


def test_write_with_a_literal_key_and_a_parameter_too_long_to_look_at_evicts():
    d = Dialogue()
    text = b"UPDATE users SET name = $1 WHERE id = 3"
    d.client(frontend.Parse(b"", text), frontend.Bind(b"", b"", (), [b"x" * CAPACITY]), frontend.Execute(b""))
    d.client(frontend.Sync()).server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["EVICT users:3"]
    assert not d.session.blinded


def test_statement_too_long_to_look_at_flushes():
    d = Dialogue()
    d.client(frontend.Parse(b"s", LONG), frontend.Bind(b"", b"s"), frontend.Execute(b""), SYNC)
    assert not d.database.certain, "it may be DDL"
    d.server(PARSED, BOUND, done("UPDATE 1"), ready())
    assert d.got() == ["FLUSH "]


def test_function_call_too_long_to_look_at_is_noted():
    (found,) = noted(frontend.FunctionCall(1, (), [LONG], 0))
    assert isinstance(found, FunctionCallRequest)


@pytest.mark.parametrize(
    "message",
    [frontend.Parse(LONG, b""), frontend.Bind(LONG, b""), frontend.Bind(b"", LONG)],
    ids=["Parse", "Bind, portal", "Bind, statement"],
)
def test_name_too_long_to_look_at_blinds_the_session(message):
    d = Dialogue().client(message)
    (reason,) = d.reasons
    assert reason.startswith("Desynchronized: a name of more than")


def test_other_message_too_long_to_look_at_desynchronizes():
    """The scanner refuses these first, by their limits."""
    with pytest.raises(Desynchronized, match="where a short one was due"):
        Dialogue().session._requests.oversize(frontend.SYNC, CAPACITY, b"")


def test_query_that_was_sent_already_is_planned_again_when_names_change():
    d = Dialogue()
    d.client(q("CREATE TEMP TABLE users (id int, name text)"), SYNC, q("UPDATE users SET name = 'a' WHERE id = 1"))
    d.server(done("CREATE TABLE"), ready(), ready(), done("UPDATE 1"), ready())
    assert d.got() == ["EVICT users:1"], "the name may mean the temporary table now"
