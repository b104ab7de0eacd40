"""Startup packets: read as strictly as PostgreSQL reads them, in whatever pieces they come."""

import pytest
from hypothesis import given

from protocol import codes, startup
from protocol.errors import EncodeError, StartupError
from protocol.startup import CancelRequest, StartupMessage
from tests.protocol import samples, strategies


def packet(body):
    return (len(body) + 4).to_bytes(4, "big") + body


V3 = b"\0\x03\0\0"


@pytest.mark.parametrize(("message", "wire"), samples.STARTUP, ids=samples.name)
def test_bytes(message, wire):
    assert bytes(message) == wire
    assert startup.decode(wire) == message


@given(strategies.startup_packets)
def test_round_trip(message):
    wire = bytes(message)
    assert startup.packet_end(wire) == len(wire)
    assert startup.decode(wire) == message
    assert type(message).decode(wire[4:]) == message


@pytest.mark.parametrize(("message", "wire"), samples.STARTUP, ids=samples.name)
def test_packet_end_at_every_cut(message, wire):
    for cut in range(len(wire)):
        assert startup.packet_end(wire[:cut]) is None
    assert startup.packet_end(bytearray(wire)) == len(wire)
    assert startup.packet_end(wire + b"what the client sends next") == len(wire)


@pytest.mark.parametrize(("message", "wire"), samples.STARTUP, ids=samples.name)
def test_truncated_or_longer_packet(message, wire):
    for wrong in (*(wire[:cut] for cut in range(len(wire))), wire + b"\0"):
        with pytest.raises(StartupError) as caught:
            startup.decode(wrong)
        assert caught.value.sqlstate is None


@pytest.mark.parametrize("length", [0, 4, 7, 10_005, 0x1603_0100, 0x4745_5420, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_length_out_of_range(length):
    """Known as soon as four bytes are there: nothing is waited for, and PostgreSQL does not answer it."""
    with pytest.raises(StartupError, match="invalid length of startup packet") as caught:
        startup.packet_end(length.to_bytes(4, "big"))
    assert caught.value.sqlstate is None


@pytest.mark.parametrize("length", [8, 10_004])
def test_length_in_range(length):
    assert startup.packet_end(length.to_bytes(4, "big")) is None


def test_longest_packet():
    """PostgreSQL's 10,000 bytes do not count the length itself."""
    value = b"x" * (10_000 - len(b"\0\x03\0\0user\0bob\0a\0\0\0"))
    wire = bytes(StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob"), (b"a", value))))
    assert len(wire) == 10_004
    assert StartupMessage.decode(wire[4:]).get(b"a") == value
    with pytest.raises(EncodeError, match="10005 bytes"):
        bytes(StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob"), (b"a", value + b"x"))))


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        b"user\0bob\0",
        b"user\0bob",
        b"user\0",
        b"user",
        b"user\0\0",
        b"user\0bob\0\0\0",
        b"\0user\0bob\0\0",
        b"user\0bob\0\0options\0",
    ],
)
def test_layout(parameters):
    with pytest.raises(StartupError, match="invalid startup packet layout") as caught:
        startup.decode(packet(V3 + parameters))
    assert caught.value.sqlstate == "08P01"
    assert "bob" not in str(caught.value)


def test_nul_within_a_value_cannot_name_another_user():
    """``user`` = ``bob\\0user\\0postgres``: the packet says two users, and everybody must read the same one."""
    with pytest.raises(EncodeError):
        bytes(StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob\0user\0postgres"),)))
    message = StartupMessage.decode(V3 + b"user\0bob\0user\0postgres\0\0")
    assert message.user == b"postgres"


def test_parameter_without_name_cannot_be_encoded():
    with pytest.raises(EncodeError):
        bytes(StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob"), (b"", b"x"))))


@pytest.mark.parametrize("parameters", [b"\0", b"database\0app\0\0", b"user\0\0\0", b"USER\0bob\0\0"])
def test_no_user(parameters):
    with pytest.raises(StartupError, match="no PostgreSQL user name") as caught:
        startup.decode(packet(V3 + parameters))
    assert caught.value.sqlstate == "28000"


@pytest.mark.parametrize(
    ("version", "text"), [(2 << 16, "2.0"), (4 << 16, "4.0"), (0, "0.0"), (1234 << 16 | 5681, "1234.5681")]
)
def test_unsupported_version(version, text):
    with pytest.raises(StartupError, match=f"unsupported frontend protocol {text}") as caught:
        startup.decode(packet(version.to_bytes(4, "big") + b"any shape"))
    assert caught.value.sqlstate == "0A000"


@pytest.mark.parametrize("minor", [0, 1, 2, 3, 9999, 65_535])
def test_any_minor_version(minor):
    message = StartupMessage.decode((3 << 16 | minor).to_bytes(4, "big") + b"user\0bob\0_pq_.x\x001\0\0")
    assert message.version == 3 << 16 | minor
    assert message.get(b"_pq_.x") == b"1"


class TestParameters:
    def message(self, *pairs):
        return StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob"), *pairs))

    def test_database_is_the_user_s_by_default(self):
        assert self.message().database == b"bob"
        assert self.message((b"database", b"")).database == b"bob"
        assert self.message((b"database", b"app")).database == b"app"

    def test_the_last_of_equal_names_counts(self):
        assert self.message((b"database", b"a"), (b"database", b"b")).database == b"b"

    def test_missing(self):
        assert self.message().get(b"options") is None
        assert StartupMessage(codes.PROTOCOL_3_0, ()).user == b""

    @pytest.mark.parametrize("value", [b"true", b"database", b"on", b"yes", b"1", b"T", b"y", b"o", b"nonsense", b""])
    def test_replication(self, value):
        assert self.message((b"replication", value)).replication

    @pytest.mark.parametrize("value", [b"false", b"off", b"OF", b"no", b"0", b"N", b"F", b"fal"])
    def test_no_replication(self, value):
        assert not self.message((b"replication", value)).replication

    def test_no_replication_by_default(self):
        assert not self.message().replication


class TestRequests:
    @pytest.mark.parametrize("code", [codes.SSL_REQUEST, codes.GSSENC_REQUEST])
    def test_with_something_behind(self, code):
        with pytest.raises(StartupError):
            startup.decode(packet(code.to_bytes(4, "big") + b"\0"))

    def test_wrong_body(self):
        with pytest.raises(StartupError, match="no SSLRequest"):
            startup.SSLRequest.decode(codes.GSSENC_REQUEST.to_bytes(4, "big"))

    @pytest.mark.parametrize("body", [b"", b"\x04\xd2\x16", b"\x04\xd2\x16\x2e\0\0\0"])
    def test_short_cancel_request(self, body):
        with pytest.raises(StartupError, match="invalid length of cancel request"):
            CancelRequest.decode(body)

    @pytest.mark.parametrize("size", [0, 1, 3, 257, 1000])
    def test_key_length(self, size):
        with pytest.raises(StartupError, match=f"key of {size} bytes"):
            startup.decode(packet(b"\x04\xd2\x16\x2e\0\0\0\x01" + b"k" * size))
        with pytest.raises(EncodeError):
            bytes(CancelRequest(1, b"k" * size))

    @pytest.mark.parametrize("size", [4, 32, 256])
    def test_long_keys(self, size):
        assert startup.decode(bytes(CancelRequest(-1, b"k" * size))) == CancelRequest(-1, b"k" * size)

    def test_cancel_request_with_another_code(self):
        with pytest.raises(StartupError):
            CancelRequest.decode(b"\x04\xd2\x16\x2f\0\0\0\x01key!")

    def test_process_id_out_of_range(self):
        with pytest.raises(EncodeError):
            bytes(CancelRequest(2**31, b"key!"))


def test_body_too_short_for_a_version():
    with pytest.raises(StartupError):
        StartupMessage.decode(b"\0\x03")


def test_fixed_frames():
    assert startup.SSL_REQUEST_FRAME == b"\0\0\0\x08\x04\xd2\x16\x2f"
    assert startup.GSSENC_REQUEST_FRAME == b"\0\0\0\x08\x04\xd2\x16\x30"
