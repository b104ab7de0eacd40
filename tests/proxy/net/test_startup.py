"""Startup messages at every split point, what is noted of them, and what is taken out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import authentication, backend, codes, frontend, startup
from proxy.net.startup import MAX_EARLY, MAX_MESSAGE, Startup, cancel_request, fatal, parse

SASL = bytes(authentication.AuthenticationSASL((b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256")))
BEGIN = [
    bytes(authentication.AuthenticationOk()),
    bytes(backend.ParameterStatus(b"server_version", b"18.0")),
    bytes(backend.ParameterStatus(b"client_encoding", b"UTF8")),
    bytes(backend.NoticeResponse.of("NOTICE", "00000", "hello")),
    bytes(backend.BackendKeyData(4711, b"0123456789abcdef")),
]
READY = bytes(backend.ReadyForQuery(codes.IDLE))
LATER = bytes(backend.NotificationResponse(1, b"channel", b"payload"))
PASSWORD = bytes(frontend.PasswordMessage(b"secret"))
QUERY = bytes(frontend.Query(b"select 1"))


def chunks(data, cuts):
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(st.lists(st.integers(0, 1000), max_size=6))
def test_all_messages_pass_and_ready_for_query_is_kept_back_wherever_chunks_end(cuts):
    follower = Startup()
    passed = b""
    data = b"".join(BEGIN) + READY + LATER
    pieces = chunks(data, cuts)
    for position, piece in enumerate(pieces):
        passed += follower.backend(piece)
        if follower.ready:
            assert follower.rest + b"".join(pieces[position + 1 :]) == LATER
            break
    assert passed == b"".join(BEGIN)
    assert follower.ready == READY
    assert follower.parameters == {"server_version": "18.0", "client_encoding": "UTF8"}
    assert follower.cancel_key == b"\0\0\x12\x67" + b"0123456789abcdef"
    assert follower.followed


def test_whole_messages_pass_at_once():
    follower = Startup()
    assert follower.backend(BEGIN[0] + BEGIN[1][:7]) == BEGIN[0]
    assert follower.backend(BEGIN[1][7:]) == BEGIN[1]


def test_incomplete_message_is_released_at_the_end():
    follower = Startup()
    assert follower.backend(BEGIN[1][:9]) == b""
    assert follower.release() == BEGIN[1][:9]
    assert follower.release() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"Eout of memory\n\0",
        b"S\0\0\0\3",
        b"N\xff\xff\xff\xff",
        b"S\0\0\0\x06ab",  # no terminator
        b"D\0\0\0\4",  # does not belong here
        b"N" + (MAX_MESSAGE + 1).to_bytes(4, "big") + b"x" * 100,
    ],
)
def test_bytes_that_are_no_startup_pass_as_they_are(data):
    follower = Startup()
    assert follower.backend(BEGIN[0] + data) == BEGIN[0] + data
    assert follower.lost
    assert follower.backend(READY) == READY
    assert follower.ready is None
    assert not follower.followed


def test_channel_binding_is_stripped_and_the_length_corrected():
    expected = bytes(authentication.AuthenticationSASL((b"SCRAM-SHA-256",)))
    assert Startup(strip_channel_binding=True).backend(SASL) == expected
    assert Startup().backend(SASL) == SASL


def test_channel_binding_stays_when_no_other_mechanism_is_offered():
    only = bytes(authentication.AuthenticationSASL((b"SCRAM-SHA-256-PLUS",)))
    assert Startup(strip_channel_binding=True).backend(only) == only


@given(st.lists(st.integers(0, 1000), max_size=6))
def test_early_messages_are_kept_without_the_password(cuts):
    follower = Startup()
    for piece in chunks(PASSWORD + PASSWORD + QUERY + PASSWORD, cuts):
        follower.frontend(piece)
    assert follower.early == bytearray(QUERY + PASSWORD)
    follower.backend(b"".join(BEGIN) + READY)
    assert follower.followed


def test_session_is_not_followed_when_ready_comes_amid_an_authentication_message():
    follower = Startup()
    follower.frontend(PASSWORD[:-1])
    follower.backend(READY)
    assert not follower.followed


@pytest.mark.parametrize("data", [b"p\0\0\0\0", b"p\xff\xff\xff\xff", QUERY + b"x" * MAX_EARLY])
def test_client_whose_messages_cannot_be_read_is_not_followed(data):
    follower = Startup()
    follower.frontend(data)
    follower.frontend(QUERY)
    follower.backend(READY)
    assert follower.early is None
    assert not follower.followed


@given(st.binary(max_size=300))
def test_no_bytes_raise_and_none_are_lost(data):
    follower = Startup()
    passed = follower.backend(data) + (follower.ready or b"") + follower.rest + follower.release()
    assert passed == data
    follower.frontend(data)


def test_malformed_startup_message_is_none():
    packet = bytes(startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"me"),)))
    found = parse(packet)
    assert found is not None
    assert found.database == b"me"
    assert parse(packet[:-1]) is None
    assert parse(b"\0\0\0\x08\0\2\0\0") is None


def test_cancel_request_and_fatal_are_encoded_as_the_codec_reads_them():
    request = startup.decode(cancel_request(b"\0\0\0\7" + b"k" * 32))
    assert request == startup.CancelRequest(7, b"k" * 32)
    report = backend.ErrorResponse.decode(fatal("53300", "sorry", hint="wait")[5:])
    assert (report.severity, report.sqlstate, report.get(codes.HINT)) == (b"FATAL", b"53300", b"wait")
