"""How sessions begin or are refused, compared byte by byte."""

import pytest

from protocol import codes, startup
from protocol.startup import GSSENC_REQUEST_FRAME, SSL_REQUEST_FRAME, StartupMessage


def packet(version, *pairs):
    return bytes(StartupMessage(version, tuple((name.encode(), value.encode()) for name, value in pairs)))


USER = ("user", "postgres")


@pytest.mark.parametrize(
    "requests",
    [
        [SSL_REQUEST_FRAME],
        [GSSENC_REQUEST_FRAME],
        [SSL_REQUEST_FRAME, GSSENC_REQUEST_FRAME],
        [GSSENC_REQUEST_FRAME, SSL_REQUEST_FRAME],
    ],
)
def test_encryption_requests_before_the_startup_message_are_answered_n(both, requests):
    def script(wire):
        for request in requests:
            wire.send(request, chunk=1)
            assert wire.read_byte() == b"N"
        wire.start()
        wire.query("SELECT 1")

    both(script, started=False)


def test_startup_message_sent_byte_by_byte_is_accepted(both):
    def script(wire):
        wire.send(bytes(wire.startup), chunk=1)
        wire.read_until("Z")
        wire.query("SELECT name FROM items WHERE id = 1")

    both(script, started=False)


@pytest.mark.parametrize(
    "version", [codes.PROTOCOL_3_0, 3 << 16 | 1, codes.PROTOCOL_3_2, 3 << 16 | 3, 3 << 16 | 9999, 3 << 16 | 0xFFFF]
)
def test_minor_version_is_negotiated_by_the_server(both, version):
    def script(wire):
        wire.query("SELECT 1")

    both(script, version=version)


@pytest.mark.parametrize(
    "parameters",
    [
        {"application_name": "it's"},
        {"application_name": ""},
        {"DateStyle": "German", "TimeZone": "Asia/Tokyo"},
        {"options": "-c search_path=pg_catalog -c work_mem=1MB"},
        {"options": "-c geqo=off -c standard_conforming_strings=off"},
        {"client_encoding": "LATIN1"},
        {"_pq_.unknown": "1", "_pq_.other": "2"},
        {"replication": "false"},
    ],
)
def test_valid_startup_parameters_have_the_same_effect(both, parameters):
    def script(wire):
        wire.query(
            "SELECT current_setting('application_name'), now()::date = current_date; SHOW search_path; SHOW DateStyle"
        )

    assert both(script, **parameters).kinds.startswith("TDC")


@pytest.mark.parametrize(
    "parameters",
    [
        {"database": "absent"},
        {"user": "absent"},
        {"nonsense": "1"},
        {"client_encoding": "KLINGON"},
        {"options": "-c nonsense=1"},
        {"options": "--nonsense"},
        {"DateStyle": "never"},
        {"replication": "maybe"},
        {"user": ""},
        {"user": "x" * 9000},
    ],
)
def test_invalid_startup_parameters_have_the_same_error(both, parameters):
    def script(wire):
        wire.send(wire.startup)
        wire.read_to_end()

    wire = both(script, started=False, **parameters)
    assert wire.kinds in {"E$", "RE$"}  # the error comes before or after AuthenticationOk


@pytest.mark.parametrize(
    "garbage",
    [
        packet(2 << 16, USER),
        packet(4 << 16, USER),
        packet(0, USER),
        packet(3 << 16),
        b"\0\0\0\x08\0\x03\0\0",
        b"\0\0\0\x0e\0\x03\0\0user\0\0",
        b"\0\0\0\x12\0\x03\0\0user\0me\0x\0",
        b"\0\0\0\x0a\0\x03\0\0us",
        b"\0\0\0\x07\0\x03\0",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\x27\x15" + bytes(100),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        SSL_REQUEST_FRAME[:-1] + b"\0",
        bytes(startup.CancelRequest(4711, b"none")),
        b"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\x01",
    ],
)
def test_malformed_first_packet_has_the_same_answer(both, garbage):
    def script(wire):
        wire.send(garbage)
        wire.half_close()
        wire.read_to_end()

    both(script, started=False)
