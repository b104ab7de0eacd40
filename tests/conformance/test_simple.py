"""Simple queries, function calls, notifications, cancellation and broken sessions, compared message by message."""

import pytest

from protocol import backend, codes, frontend
from tests.conformance.stages import PLAIN, TLS, plain_and_tls
from tests.conformance.wire import SYNC, Wire, cancel, query, run, wait_until

INT4PL = 177
LO_CREATE, LO_OPEN, LOWRITE, LOREAD, LO_UNLINK = 715, 952, 955, 954, 964


def int4(number):
    return number.to_bytes(4, "big", signed=True)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("INSERT INTO plain VALUES (1); SELECT 1 / 0; INSERT INTO plain VALUES (2)", "CEZ"),
        ("INSERT INTO plain VALUES (1); COMMIT; INSERT INTO plain VALUES (2); SELECT 1 / 0", "CNCCEZ"),
        ("BEGIN; INSERT INTO plain VALUES (1); COMMIT; INSERT INTO plain VALUES (2); SELECT 1 / 0", "CCCCEZ"),
        ("BEGIN; INSERT INTO plain VALUES (1); SELECT 1 / 0; COMMIT", "CCEZ"),
        ("SELECT 1; BEGIN; INSERT INTO plain VALUES (1)", "TDCCCZ"),
        ("BEGIN; SAVEPOINT a; INSERT INTO plain VALUES (1); ROLLBACK TO a; COMMIT AND CHAIN", "CCCCCZ"),
        ("UPDATE items SET name = 'x' WHERE id = 1; SELECT name FROM items WHERE id = 1; ROLLBACK", "CTDCNCZ"),
        ("SELECT 1; SELEC 2", "EZ"),
        ("COMMIT", "NCZ"),
        ("PREPARE TRANSACTION 'none'", "NCZ"),
        ("ROLLBACK TO SAVEPOINT none", "EZ"),
        ("", "IZ"),
        ("SELECT 1;;SELECT 2;", "TDCTDCZ"),
        ("SELECT $1", "EZ"),
        ("DO $$BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING HINT = 'none'; END$$; SELECT 1", "NNCTDCZ"),
        ("SELECT shout(name) FROM items WHERE id < 3", "TNDNDCZ"),
        ("SET application_name = 'other'; SET TimeZone = 'Asia/Tokyo'; SELECT now() = now()", "CCTDCSSZ"),
        ("BEGIN; SET LOCAL DateStyle = 'German'; SELECT date '2024-02-03'", "CCTDCSZ"),
        ("SET client_encoding = 'LATIN1'; SELECT 'é'", "CTDCSZ"),
        ("BEGIN; SET LOCAL DateStyle = 'German'; SELECT date '2024-02-03'; ROLLBACK", "CCTDCCZ"),
        ("SET client_encoding = 'LATIN1'; SELECT 'é'; RESET client_encoding", "CTDCCZ"),
        ("LISTEN a; NOTIFY a, 'first'; NOTIFY a, 'second'; SELECT 1; UNLISTEN a", "CCCTDCCZ"),
        ("EXPLAIN (COSTS off) UPDATE items SET name = 'x' WHERE id = 1", "TDDDCZ"),
        ("CREATE TEMP TABLE t (a int); DROP TABLE t, nothing", "CEZ"),
        ("SELECT repeat('x', 100000) FROM generate_series(1, 20)", "T" + "D" * 20 + "CZ"),
    ],
)
def test_simple_query_has_the_same_answer(both, text, kinds):
    def script(wire):
        wire.query(text)
        seen.append(wire.kinds)
        wire.query("ROLLBACK; SELECT * FROM plain ORDER BY id; SELECT name FROM items ORDER BY id LIMIT 2")

    seen: list[str] = []
    both(script)
    assert seen == [kinds] * 2


@plain_and_tls
def test_connection_to_the_server_has_tls_in_the_tls_stage_only(addresses, conformance_database, request):
    ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    answers = []
    for address in addresses:
        with Wire(*address, database=conformance_database) as wire:
            wire.start()
            wire.query(ssl)
            answers += wire.values()
    assert answers == [[b"f"], [b"t" if request.node.callspec.id == "tls" else b"f"]]


@plain_and_tls
def test_fifty_queries_sent_at_once_are_answered_in_order(both):
    def script(wire):
        wire.send(
            *(query(f"SELECT {number}; UPDATE items SET name = 'n{number}' WHERE id = 1") for number in range(50))
        )
        wire.read_until("Z", 50)
        wire.query("SELECT name FROM items WHERE id = 1")

    assert both(script).values()[-1] == [b"n49"]


def test_query_with_invalid_encoding_or_terminator_has_the_same_error(both):
    def script(wire):
        wire.query(b"SELECT '\xff'")
        wire.query(b"SELECT 1 \xc3\x28")
        wire.send(b"Q\0\0\0\x09SELEC")
        wire.read_until("Z")
        wire.send(b"Q\0\0\0\x0bSEL\0ECT")
        wire.read_until("Z")

    assert both(script).sqlstates() == ["22021", "22021", "08P01", "08P01"]


def test_own_notifications_come_before_ready_for_query(both):
    def script(wire):
        wire.query("LISTEN news")
        wire.query("BEGIN; NOTIFY news, 'one'; NOTIFY news")
        wire.query("COMMIT")
        wire.send(run("SELECT pg_notify('news', 'two')"), run("SELECT 1"), SYNC)
        wire.read_until("Z")
        wire.query("ROLLBACK")

    assert both(script).kinds == "CZ" + "CCCZ" + "CAAZ" + "12TDC12TDCAZ" + "NCZ$"


@plain_and_tls
def test_notifications_arrive_while_the_session_is_idle(both, connect_directly):
    def script(wire):
        wire.query("LISTEN news")
        connect_directly().execute("NOTIFY news, 'from elsewhere'")
        wire.read_until("A")
        connect_directly().execute("NOTIFY news, 'again'")
        wire.read_until("A")
        wire.query("SELECT 1")

    assert both(script).kinds == "CZAATDCZ$"


def test_function_calls_have_the_same_answers(both):
    def script(wire):
        def call(function, *arguments, formats=(codes.BINARY,), result=codes.BINARY):
            wire.send(frontend.FunctionCall(function, formats, list(arguments), result))
            wire.read_until("Z")

        call(INT4PL, int4(2), int4(40))
        call(INT4PL, b"2", b"40", formats=(), result=codes.TEXT)
        call(INT4PL, None, int4(1))
        call(INT4PL, int4(1))
        call(999_999)
        call(INT4PL, int4(2**31 - 1), int4(1))
        wire.send(b"F\0\0\0\x06\0\0")
        wire.read_until("Z")
        wire.query("BEGIN")
        call(LO_CREATE, int4(987_654))
        call(LO_OPEN, int4(987_654), int4(0x60000))
        call(LOWRITE, int4(0), b"x" * 200_000)
        wire.query("COMMIT; BEGIN")
        call(LO_OPEN, int4(987_654), int4(0x40000))
        call(LOREAD, int4(0), int4(150_000))
        call(LOREAD, int4(0), int4(150_000))
        call(LO_UNLINK, int4(987_654))
        wire.query("COMMIT")

    wire = both(script)
    answers = [backend.FunctionCallResponse.decode(body).value for kind, body in wire.bodies if kind == ord("V")]
    assert answers[:3] == [int4(42), b"42", None]
    assert answers[-3:-1] == [b"x" * 150_000, b"x" * 50_000]


def test_function_call_in_a_failed_block_fails_and_in_a_pipeline_is_answered(both):
    def script(wire):
        call = frontend.FunctionCall(INT4PL, (1,), [int4(1), int4(2)], 1)
        wire.query("BEGIN; SELECT 1 / 0")
        wire.send(call, query("ROLLBACK"), run("SELECT 1"), call, SYNC)
        wire.read_until("Z", 4)

    assert both(script).kinds == "CEZ" + "EZ" + "CZ" + "12TDCVZ" + "Z$"


@pytest.mark.parametrize(
    ("stage", "version"),
    [
        pytest.param(PLAIN, codes.PROTOCOL_3_0, id="3.0"),
        pytest.param(PLAIN, codes.PROTOCOL_3_2, id="3.2"),
        pytest.param(TLS, codes.PROTOCOL_3_0, id="tls"),
    ],
    indirect=["stage"],
)
def test_cancel_request_cancels_the_running_statement(both, version, connect_directly):
    def script(wire):
        wire.send(query("SELECT name FROM items WHERE id = 1; SELECT pg_sleep(60)"))
        connection = connect_directly()
        active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND wait_event = 'PgSleep'"
        wait_until(lambda: connection.execute(active).fetchone() == (1,))
        cancel(wire)
        wire.read_until("Z")
        wire.query("SELECT 1")

    wire = both(script, version=version)
    assert wire.kinds == "TDCTEZTDCZ$"
    assert wire.sqlstates() == ["57014"]
    assert len(wire.key) == (8 if version == codes.PROTOCOL_3_0 else 36)


def test_cancel_request_with_a_wrong_key_has_no_effect(both):
    def script(wire):
        key, wire.key = wire.key, wire.key[:4] + bytes(4)
        cancel(wire)
        wire.key = key
        wire.query("SELECT pg_sleep(0.05)")

    assert both(script).kinds == "TDCZ$"


@plain_and_tls
def test_session_that_terminates_its_own_backend_has_the_same_error(both):
    def script(wire):
        wire.query("UPDATE items SET name = 'x' WHERE id = 1")
        wire.send(query("SELECT 1; SELECT pg_terminate_backend(pg_backend_pid()); SELECT 2"))
        wire.read_to_end()

    wire = both(script)
    assert wire.kinds == "CZTDCTDE$"
    assert wire.sqlstates() == ["57P01"]


def test_session_terminated_by_another_session_has_the_same_error(both, connect_directly):
    def script(wire):
        wire.query("SELECT pg_backend_pid(), pg_advisory_lock(4711)")
        connection = connect_directly()
        terminated = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"
        )
        assert connection.execute(terminated).fetchone() == (1,)
        wire.read_to_end()
        # The process ID differs from session to session.
        wire.transcript = [text for text in wire.transcript if not text.startswith("D")]

    wire = both(script)
    assert wire.kinds == "TDCZE$"


@plain_and_tls
@pytest.mark.parametrize("garbage", [b"!\0\0\0\x04", b"\0\0\0\0\x04", b"Z\0\0\0\x05I"])
def test_unknown_message_type_has_the_same_error(both, may_go_blind, garbage):
    def script(wire):
        wire.query("SELECT name FROM items WHERE id = 1")
        wire.send(garbage)
        wire.read_to_end()

    wire = both(script)
    assert wire.kinds == "TDCZE$"
    assert wire.sqlstates() == ["08P01"]


@pytest.mark.parametrize(
    "garbage", [b"Q\0\0\0\x03", b"Q\xff\xff\xff\xff", b"S\x00\x00\xff\xff", b"Q\x7f\xff\xff\xff", b"X\0\0\0\0"]
)
def test_invalid_message_length_ends_the_session_without_an_error(both, may_go_blind, garbage):
    """The server logs the error, sends nothing and closes the connection."""

    def script(wire):
        wire.query("SELECT name FROM items WHERE id = 1")
        wire.send(garbage)
        wire.read_to_end()

    assert both(script).kinds == "TDCZ$"


@plain_and_tls
def test_message_truncated_by_the_end_of_the_stream_is_not_answered(both):
    def script(wire):
        wire.send(query("SELECT 1"), b"Q\0\0\0\x20SELECT")
        wire.read_until("Z")
        wire.half_close()
        wire.read_to_end()

    assert both(script).kinds == "TDCZ$"


@plain_and_tls
def test_requests_before_the_end_of_the_stream_are_all_answered(both):
    """A frontend that closes its sending direction and continues to read gets every answer."""

    def script(wire):
        wire.send(query("SELECT name FROM items WHERE id = 1"), run("SELECT 2"), SYNC, query("SELECT 3"))
        wire.half_close()
        wire.read_to_end()

    assert both(script).kinds == "TDCZ12TDCZTDCZ$"


@pytest.fixture
def connect_directly(stage):
    """Direct sessions in the same database, which are not part of the comparison."""
    connections = []

    def connect():
        connections.append(stage.connect())
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


def test_session_waiting_for_the_lock_of_another_is_served_after_commit(both, addresses, conformance_database):
    def script(wire):
        with Wire(*wire.address, database=conformance_database) as other:
            other.start()
            wire.query("BEGIN; UPDATE items SET name = 'mine' WHERE id = 1")
            other.send(
                query("UPDATE items SET name = name || ' theirs' WHERE id = 1; SELECT name FROM items WHERE id = 1")
            )
            assert other.is_silent(0.05)
            wire.query("COMMIT")
            other.read_until("Z")
            wire.transcript += other.transcript
            assert other.values() == [[b"mine theirs"]]

    both(script)
