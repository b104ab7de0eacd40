"""Startup packets are read as strictly as PostgreSQL reads them, however they are cut."""

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
def test_packet_has_the_manuals_bytes(message, wire):
    assert bytes(message) == wire
    assert startup.decode(wire) == message


@given(strategies.startup_packets)
def test_packet_survives_a_round_trip(message):
    wire = bytes(message)
    assert startup.packet_end(wire) == len(wire)
    assert startup.decode(wire) == message
    assert type(message).decode(wire[4:]) == message


@pytest.mark.parametrize(("message", "wire"), samples.STARTUP, ids=samples.name)
def test_packet_end_is_unknown_until_the_packet_is_complete(message, wire):
    for cut in range(len(wire)):
        assert startup.packet_end(wire[:cut]) is None
    assert startup.packet_end(bytearray(wire)) == len(wire)
    assert startup.packet_end(wire + b"what the client sends next") == len(wire)


@pytest.mark.parametrize(("message", "wire"), samples.STARTUP, ids=samples.name)
def test_truncated_or_longer_packet_is_refused_without_an_answer(message, wire):
    for wrong in (*(wire[:cut] for cut in range(len(wire))), wire + b"\0"):
        with pytest.raises(StartupError) as caught:
            startup.decode(wrong)
        assert caught.value.sqlstate is None


@pytest.mark.parametrize("length", [0, 4, 7, 10_005, 0x1603_0100, 0x4745_5420, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_length_out_of_range_is_refused_after_four_bytes(length):
    """No further bytes are waited for. PostgreSQL closes the connection without an answer, so there is no SQLSTATE."""
    with pytest.raises(StartupError, match="invalid length of startup packet") as caught:
        startup.packet_end(length.to_bytes(4, "big"))
    assert caught.value.sqlstate is None


@pytest.mark.parametrize("length", [8, 10_004])
def test_shortest_and_longest_length_are_accepted(length):
    assert startup.packet_end(length.to_bytes(4, "big")) is None


def test_packet_holds_at_most_10000_bytes_behind_its_length():
    """PostgreSQL's limit of 10,000 bytes does not count the length field."""
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
def test_malformed_parameter_list_is_refused(parameters):
    with pytest.raises(StartupError, match="invalid startup packet layout") as caught:
        startup.decode(packet(V3 + parameters))
    assert caught.value.sqlstate == "08P01"
    assert "bob" not in str(caught.value)


def test_nul_within_a_value_cannot_name_another_user():
    """A packet with two users is legal; proxy and PostgreSQL must use the same one, the last."""
    with pytest.raises(EncodeError):
        bytes(StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob\0user\0postgres"),)))
    message = StartupMessage.decode(V3 + b"user\0bob\0user\0postgres\0\0")
    assert message.user == b"postgres"


def test_parameter_without_name_cannot_be_encoded():
    with pytest.raises(EncodeError):
        bytes(StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob"), (b"", b"x"))))


@pytest.mark.parametrize("parameters", [b"\0", b"database\0app\0\0", b"user\0\0\0", b"USER\0bob\0\0"])
def test_packet_without_a_user_is_refused(parameters):
    with pytest.raises(StartupError, match="no PostgreSQL user name") as caught:
        startup.decode(packet(V3 + parameters))
    assert caught.value.sqlstate == "28000"


@pytest.mark.parametrize(
    ("version", "text"), [(2 << 16, "2.0"), (4 << 16, "4.0"), (0, "0.0"), (1234 << 16 | 5681, "1234.5681")]
)
def test_unsupported_major_version_is_refused_before_the_rest_is_read(version, text):
    with pytest.raises(StartupError, match=f"unsupported frontend protocol {text}") as caught:
        startup.decode(packet(version.to_bytes(4, "big") + b"any shape"))
    assert caught.value.sqlstate == "0A000"


@pytest.mark.parametrize("minor", [0, 1, 2, 3, 9999, 65_535])
def test_any_minor_version_is_accepted(minor):
    message = StartupMessage.decode((3 << 16 | minor).to_bytes(4, "big") + b"user\0bob\0_pq_.x\x001\0\0")
    assert message.version == 3 << 16 | minor
    assert message.get(b"_pq_.x") == b"1"


class TestParameters:
    def message(self, *pairs):
        return StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob"), *pairs))

    def test_database_defaults_to_the_user_name(self):
        assert self.message().database == b"bob"
        assert self.message((b"database", b"")).database == b"bob"
        assert self.message((b"database", b"app")).database == b"app"

    def test_last_of_equal_names_is_used(self):
        assert self.message((b"database", b"a"), (b"database", b"b")).database == b"b"

    def test_missing_parameter_is_none_and_missing_user_is_empty(self):
        assert self.message().get(b"options") is None
        assert StartupMessage(codes.PROTOCOL_3_0, ()).user == b""

    @pytest.mark.parametrize("value", [b"true", b"database", b"on", b"yes", b"1", b"T", b"y", b"o", b"nonsense", b""])
    def test_value_other_than_false_means_replication(self, value):
        assert self.message((b"replication", value)).replication

    @pytest.mark.parametrize("value", [b"false", b"off", b"OF", b"no", b"0", b"N", b"F", b"fal"])
    def test_every_spelling_of_false_means_no_replication(self, value):
        assert not self.message((b"replication", value)).replication

    def test_missing_replication_means_no_replication(self):
        assert not self.message().replication


class TestRequests:
    @pytest.mark.parametrize("code", [codes.SSL_REQUEST, codes.GSSENC_REQUEST])
    def test_request_with_bytes_behind_its_code_is_refused(self, code):
        with pytest.raises(StartupError):
            startup.decode(packet(code.to_bytes(4, "big") + b"\0"))

    def test_request_with_the_code_of_another_is_refused(self):
        with pytest.raises(StartupError, match="no SSLRequest"):
            startup.SSLRequest.decode(codes.GSSENC_REQUEST.to_bytes(4, "big"))

    @pytest.mark.parametrize("body", [b"", b"\x04\xd2\x16", b"\x04\xd2\x16\x2e\0\0\0"])
    def test_truncated_cancel_request_is_refused(self, body):
        with pytest.raises(StartupError, match="invalid length of cancel request"):
            CancelRequest.decode(body)

    @pytest.mark.parametrize("size", [0, 1, 3, 257, 1000])
    def test_secret_key_of_invalid_length_is_refused(self, size):
        with pytest.raises(StartupError, match=f"key of {size} bytes"):
            startup.decode(packet(b"\x04\xd2\x16\x2e\0\0\0\x01" + b"k" * size))
        with pytest.raises(EncodeError):
            bytes(CancelRequest(1, b"k" * size))

    @pytest.mark.parametrize("size", [4, 32, 256])
    def test_secret_key_of_4_to_256_bytes_is_accepted(self, size):
        assert startup.decode(bytes(CancelRequest(-1, b"k" * size))) == CancelRequest(-1, b"k" * size)

    def test_cancel_request_with_the_code_of_another_is_refused(self):
        with pytest.raises(StartupError):
            CancelRequest.decode(b"\x04\xd2\x16\x2f\0\0\0\x01key!")

    def test_process_id_out_of_range_cannot_be_encoded(self):
        with pytest.raises(EncodeError):
            bytes(CancelRequest(2**31, b"key!"))


def test_startup_body_too_short_for_a_version_is_refused():
    with pytest.raises(StartupError):
        StartupMessage.decode(b"\0\x03")


def test_frames_encoded_once_have_the_manuals_bytes():
    assert startup.SSL_REQUEST_FRAME == b"\0\0\0\x08\x04\xd2\x16\x2f"
    assert startup.GSSENC_REQUEST_FRAME == b"\0\0\0\x08\x04\xd2\x16\x30"
