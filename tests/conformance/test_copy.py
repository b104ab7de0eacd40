"""COPY in both directions and in every state of the protocol, compared message by message."""

import struct

import pytest

from protocol.copy_data import CopyData, CopyDone, CopyFail
from tests.conformance.stages import plain_and_tls
from tests.conformance.wire import FLUSH, SYNC, TERMINATE, query, run

DONE = bytes(CopyDone())
FAIL = bytes(CopyFail(b"changed my mind"))
FROM = "COPY plain FROM STDIN"
CONTENT = "SELECT * FROM plain ORDER BY id"


def data(text):
    return CopyData(text.encode())


@plain_and_tls
@pytest.mark.parametrize(
    "text",
    [
        "COPY items TO STDOUT",
        "COPY items (id, name) TO STDOUT WITH (FORMAT csv, HEADER, FORCE_QUOTE *)",
        "COPY items TO STDOUT WITH (FORMAT binary)",
        "COPY (SELECT id, name FROM items WHERE id < 3) TO STDOUT",
        "COPY (UPDATE items SET name = 'x' WHERE id < 3 RETURNING id, name) TO STDOUT",
        "COPY (SELECT 1 / (id - 10) FROM items ORDER BY id) TO STDOUT",
        "COPY (SELECT) TO STDOUT",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 3000)) TO STDOUT",
        "SELECT 1; COPY plain TO STDOUT; COPY items (id) TO STDOUT; SELECT 2",
        "COPY nowhere TO STDOUT",
    ],
)
def test_copy_out_is_relayed_unchanged(both, text):
    def script(wire):
        wire.query(text)
        if ";" not in text:
            wire.send(run(text), SYNC)
            wire.read_until("Z")
        wire.query("SELECT name FROM items ORDER BY id LIMIT 2")

    assert both(script).kinds.count("Z") == (2 if ";" in text else 3)


@plain_and_tls
def test_copy_in_with_flush_and_sync_between_the_data_is_relayed_unchanged(both):
    def script(wire):
        wire.send(query(FROM))
        wire.read_until("G")
        wire.send(data("1\tone\n2\tt"), data("wo\n"), FLUSH, data(""), SYNC, data("3\t\\N\n"), DONE)
        wire.read_until("Z")
        wire.query(CONTENT)

    wire = both(script)
    assert wire.kinds == "GCZTDDDCZ$"
    assert wire.values() == [[b"1", b"one"], [b"2", b"two"], [b"3", None]]


@pytest.mark.parametrize("chunk", [None, 1])
def test_copy_data_sent_before_copy_in_response_is_relayed_unchanged(both, chunk):
    def script(wire):
        wire.send(query(FROM), data("1\tone\n"), DONE, query(CONTENT), chunk=chunk)
        wire.read_until("Z", 2)

    assert both(script).kinds == "GCZTDCZ$"


def test_binary_copy_in_is_relayed_unchanged(both):
    def script(wire):
        fields = struct.pack("!hi4si3s", 2, 4, b"\0\0\0\x07", 3, b"abc")
        wire.send(query(FROM + " (FORMAT binary)"))
        wire.read_until("G")
        wire.send(CopyData(b"PGCOPY\n\xff\r\n\0" + bytes(8)), CopyData(fields + b"\xff\xff"), DONE)
        wire.read_until("Z")
        wire.query(CONTENT)

    assert both(script).values() == [[b"7", b"abc"]]


@plain_and_tls
def test_copy_in_of_20000_messages_is_relayed_unchanged(both):
    def script(wire):
        wire.send(query(FROM))
        wire.read_until("G")
        for start in range(0, 20_000, 1000):
            wire.send(*(data(f"{number}\t{'x' * 50}\n") for number in range(start, start + 1000)))
        wire.send(DONE, query("SELECT count(*), sum(id) FROM plain"))
        wire.read_until("Z", 2)

    assert both(script).values() == [[b"20000", b"199990000"]]


@plain_and_tls
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize(
    "ending",
    [
        pytest.param([FAIL], id="fail"),
        pytest.param([data("not a number\tx\n"), data("2\ttwo\n"), DONE], id="bad row"),
        pytest.param([data("1\tone\textra\n"), FAIL], id="bad row, fail"),
        pytest.param([data("1\tone\n"), DONE, DONE, FAIL, data("late")], id="late"),
    ],
)
def test_copy_in_that_fails_or_is_aborted_is_relayed_unchanged(both, ending, extended):
    assert run_copy_with_ending(both, ending, extended).kinds.endswith("Z$")


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("inside", [query("SELECT 'inside'"), run("SELECT 'inside'")], ids=["query", "extended query"])
def test_query_message_inside_copy_in_is_relayed_unchanged(both, may_go_blind, inside, extended):
    run_copy_with_ending(both, [inside], extended)


def run_copy_with_ending(both, ending, extended):
    """COPY FROM STDIN with one row and then `ending`, and statements afterwards if the session still lives."""

    def script(wire):
        wire.send(run(FROM) if extended else query(FROM))
        if extended:
            wire.send(FLUSH)
        wire.read_until("G")
        wire.send(data("5\tfive\n"), *ending, SYNC if extended else b"")
        wire.read_until("Z")
        if wire.kinds.endswith("$"):
            return  # a request inside COPY makes the server end the session
        wire.send(query(CONTENT), run("SELECT 'after'"), SYNC)
        wire.read_until("Z", 2)

    return both(script)


def test_unknown_message_type_inside_copy_in_ends_the_session(both, may_go_blind):
    def script(wire):
        wire.send(query(FROM))
        wire.read_until("G")
        wire.send(data("5\tfive\n"), b"!\0\0\0\x04")
        wire.read_to_end()

    assert both(script).kinds == "GEE$"


def test_sync_inside_copy_in_is_ignored(both):
    def script(wire):
        wire.send(run(FROM), SYNC)
        wire.read_until("G")
        wire.send(data("1\tone\n"), SYNC, FLUSH, SYNC, data("2\ttwo\n"), DONE)
        wire.send(FLUSH)
        wire.read_until("C")
        assert wire.is_silent()
        wire.send(run("SELECT 'same pipeline'"), SYNC, query(CONTENT))
        wire.read_until("Z", 2)

    assert both(script).kinds == "12nGC" + "12TDCZ" + "TDDCZ$"


def test_copy_data_behind_a_copy_that_failed_is_ignored(both):
    def script(wire):
        wire.send(
            run("COPY nowhere FROM STDIN"), data("1\n"), DONE, SYNC, query("COPY nowhere FROM STDIN"), data("1\n"), DONE
        )
        wire.send(query("SELECT 1"), data("late"), DONE, FAIL, query("SELECT 2"))
        wire.read_until("Z", 4)

    assert both(script).kinds == "12nEZEZTDCZTDCZ$"


def test_several_copies_in_one_query_string_are_relayed_unchanged(both):
    def script(wire):
        wire.send(query(f"SELECT 1; {FROM}; {CONTENT}; {FROM}; COPY plain TO STDOUT; SELECT 2"))
        wire.read_until("G")
        wire.send(data("1\tone\n"), DONE)
        wire.read_until("G")
        wire.send(data("2\ttwo\n"), DONE)
        wire.read_until("Z")
        wire.send(query(f"{FROM}; SELECT 1 / 0; {FROM}"), data("3\tthree\n"), DONE, query(CONTENT))
        wire.read_until("Z", 2)

    assert both(script).kinds == "TDCGCTDCGCHddcCTDCZ" + "GCEZ" + "TDDCZ$"


def test_copy_into_a_captured_table_is_rolled_back_with_its_block(both):
    def script(wire):
        wire.send(query("BEGIN; COPY items (id, name) FROM STDIN"), data("100\thundred\n"), DONE)
        wire.read_until("Z")
        wire.query("SELECT name FROM items WHERE id = 100; ROLLBACK; SELECT name FROM items WHERE id = 100")

    assert both(script).values() == [[b"hundred"]]


@plain_and_tls
def test_terminate_inside_copy_in_ends_the_session(both):
    def script(wire):
        wire.send(query(FROM))
        wire.read_until("G")
        wire.send(data("1\tone\n"), TERMINATE)
        wire.read_to_end()

    both(script)


def test_replication_with_copy_in_both_directions_is_relayed_unchanged(both):
    def script(wire):
        wire.query("IDENTIFY_SYSTEM")
        position = wire.values()[-1][2].decode()
        wire.send(query(f"START_REPLICATION PHYSICAL {position}"))
        wire.read_until("W")
        wire.send(DONE)
        wire.read_until("Z")
        # Positions, times and the amount of streamed data differ from run to run.
        wire.transcript = [text for text in wire.transcript if text[0] not in "Dd"]

    wire = both(script, replication="true")
    assert wire.kinds.replace("d", "") == "TDCZWcTDCCZ$" or wire.kinds.replace("d", "") == "TDCZWcCCZ$"
