"""Our own question's answer, read out of a stream that also has the client's messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import backend, codes
from proxy.net.relay import injected_query
from proxy.net.relay.injected_query import InjectedQuery

SETTINGS = [
    backend.ParseComplete(),
    backend.BindComplete(),
    backend.DataRow([b"pg_catalog, pg_temp", b"4s"]),
    backend.CommandComplete(b"SELECT 1"),
    backend.CloseComplete(),
    backend.CloseComplete(),
]
READY = backend.ReadyForQuery(codes.IDLE)
NOTIFICATION = backend.NotificationResponse(1, b"channel", b"payload")
STATUS = backend.ParameterStatus(b"TimeZone", b"UTC")
ROWS = [backend.DataRow([b"abc"]), backend.DataRow([None]), backend.DataRow([b"def", b"other column"])]


def answer(*rows):
    rest = [backend.CommandComplete(b"SELECT"), backend.CloseComplete(), backend.CloseComplete(), READY]
    return [*SETTINGS, backend.ParseComplete(), backend.BindComplete(), *rows, *rest]


def stream(*messages):
    return b"".join(bytes(message) for message in messages)


@given(st.lists(st.integers(1, 300), max_size=8))
def test_answer_is_the_same_wherever_chunks_end(cuts):
    messages = answer(*ROWS)
    messages.insert(3, NOTIFICATION)
    messages.insert(9, STATUS)
    data = stream(*messages)
    asked = InjectedQuery(b"SELECT 1")
    passed, start = b"", 0
    for cut in [*cuts, len(data)]:
        passed += asked.feed(data[start : start + cut])
        start += cut
    assert asked.done
    assert asked.result == b"abcdef"
    assert passed == stream(NOTIFICATION, STATUS)
    assert asked.rest == b""


def test_bytes_behind_the_answer_are_handed_back():
    asked = InjectedQuery(b"SELECT 1")
    asked.feed(stream(*answer(*ROWS), NOTIFICATION) + b"Zhalf")
    assert asked.done
    assert asked.rest == stream(NOTIFICATION) + b"Zhalf"


def test_error_is_no_answer_and_the_statement_is_closed_after_it():
    asked = InjectedQuery(b"SELECT 1")
    assert b"SELECT 1\0" in asked.to_send
    asked.to_send = b""
    error = backend.ErrorResponse.of("ERROR", "57014", "canceling statement due to statement timeout")
    assert asked.feed(stream(*SETTINGS, backend.ParseComplete(), error, READY)) == b""
    assert not asked.done
    assert asked.to_send.startswith(b"C")
    asked.to_send = b""
    assert asked.feed(stream(backend.CloseComplete(), READY)) == b""
    assert asked.done
    assert asked.result is None
    assert asked.to_send == b""


def test_fatal_error_is_passed_to_the_client():
    asked = InjectedQuery(b"SELECT 1")
    error = backend.ErrorResponse.of("FATAL", "57P01", "terminating connection due to administrator command")
    assert asked.feed(stream(*SETTINGS, error)) == stream(error)
    assert asked.done
    assert asked.fatal
    assert asked.result is None


@pytest.mark.parametrize("severity", ["DEBUG", "LOG", "INFO"])
def test_notices_about_our_statements_are_kept_from_the_client(severity):
    asked = InjectedQuery(b"SELECT 1")
    assert asked.feed(stream(backend.NoticeResponse.of(severity, "00000", "parse"))) == b""
    warning = stream(backend.NoticeResponse.of("WARNING", "01000", "collation"))
    assert asked.feed(warning) == warning


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0\0",
        b"G\0\0\0\7\0\0\0",
        b"Z\0\0\0\5x",
        b"Z\0\0\0\5T",
        b"D\0\0\0\6\0\1",
        b"C\xff\xff\xff\xff",
    ],
)
def test_answer_that_cannot_be_read_is_handed_back_whole(data):
    asked = InjectedQuery(b"SELECT 1")
    assert asked.feed(data) == b""
    assert asked.done
    assert asked.lost
    assert asked.result is None
    assert asked.rest == data


def test_answer_beyond_the_limit_is_none_and_is_not_kept(monkeypatch):
    monkeypatch.setattr(injected_query, "MAX_RESULT", 1000)
    big = stream(*SETTINGS, backend.ParseComplete(), backend.BindComplete(), backend.DataRow([b"x" * 5000]))
    asked = InjectedQuery(b"SELECT 1")
    for start in range(0, len(big), 700):
        assert asked.feed(big[start : start + 700]) == b""
        assert len(asked._buffer) <= 1400
    asked.feed(stream(READY))
    asked.feed(stream(backend.CloseComplete(), READY))
    assert asked.done
    assert asked.result is None

    many = InjectedQuery(b"SELECT 1")
    many.feed(stream(*answer(*[backend.DataRow([b"y" * 300])] * 4)))
    many.feed(stream(backend.CloseComplete(), READY))
    assert many.done
    assert many.result is None


@given(st.binary(max_size=200))
def test_no_bytes_raise(data):
    InjectedQuery(b"SELECT 1").feed(data)
