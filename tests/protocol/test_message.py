"""What holds for every message with a type byte: its bytes, its round trip, its limits, its frame."""

import pytest
from hypothesis import given

from protocol import authentication, backend, frontend
from protocol.errors import EncodeError, MessageError
from protocol.fields import MAXIMUM_LENGTH
from protocol.message import HEADER, Message, no_limits
from tests.protocol import samples, strategies

EVERY = samples.FRONTEND + samples.BACKEND
CLASSES = {type(message) for message, _ in EVERY}
RESPONSES = {
    frontend.PasswordMessage,
    frontend.SASLInitialResponse,
    frontend.SASLResponse,
    frontend.GSSResponse,
}


def check_round_trip(message: Message, limits: list[int]) -> None:
    wire = bytes(message)
    kind, length = HEADER.unpack_from(wire)
    assert (kind, length) == (message.TYPE, len(wire) - 1)
    assert length <= limits[kind]
    again = type(message).decode(wire[5:])
    assert again == message
    assert bytes(again) == wire


@given(strategies.frontend_messages)
def test_frontend_message_survives_a_round_trip(message):
    check_round_trip(message, frontend.LIMITS)
    assert frontend.decode(message.TYPE, message.body(), type(message)) == message


@given(strategies.backend_messages)
def test_backend_message_survives_a_round_trip(message):
    check_round_trip(message, backend.LIMITS)
    assert backend.decode(message.TYPE, message.body()) == message


def test_samples_cover_every_message():
    known = {*frontend.MESSAGES.values(), *backend.MESSAGES.values(), *authentication.REQUESTS.values(), *RESPONSES}
    assert known == CLASSES


@pytest.mark.parametrize(("message", "wire"), EVERY, ids=samples.name)
def test_message_has_the_manuals_bytes(message, wire):
    assert bytes(message) == wire
    assert type(message).decode(wire[5:]) == message


@pytest.mark.parametrize(("message", "wire"), EVERY, ids=samples.name)
def test_truncated_body_is_refused_or_ends_the_last_field_earlier(message, wire):
    body = wire[5:]
    for size in range(len(body)):
        try:
            shorter = type(message).decode(body[:size])
        except MessageError:
            continue
        # A last field that extends to the end of the message is shorter then; everything else is unchanged.
        assert isinstance(message, (*samples.TO_THE_END, backend.BackendKeyData)), size
        assert bytes(shorter)[5:] == body[:size]


@pytest.mark.parametrize(("message", "wire"), EVERY, ids=samples.name)
def test_trailing_bytes_are_refused(message, wire):
    if isinstance(message, samples.TO_THE_END):
        assert bytes(type(message).decode(wire[5:] + b"\0"))[5:] == wire[5:] + b"\0"
        return
    with pytest.raises(MessageError):
        type(message).decode(wire[5:] + b"\0" * 300)


@pytest.mark.parametrize("extra", [b"\0", b"I", b"\0\0"])
@pytest.mark.parametrize(
    ("message", "wire"), [sample for sample in EVERY if not isinstance(sample[0], samples.TO_THE_END)], ids=samples.name
)
def test_one_byte_too_many_is_refused(message, wire, extra):
    if isinstance(message, backend.BackendKeyData) and len(message.secret_key) < 256:
        assert type(message).decode(wire[5:] + extra).secret_key == message.secret_key + extra
        return
    with pytest.raises(MessageError):
        type(message).decode(wire[5:] + extra)


@pytest.mark.parametrize("kind", ["frontend", "backend"])
def test_type_bytes_without_message_are_refused(kind):
    module = {"frontend": frontend, "backend": backend}[kind]
    decode = module.decode
    for byte in range(256):
        if module.LIMITS[byte]:
            continue
        with pytest.raises(MessageError, match=f"0x{byte:02x}"):
            decode(byte, b"")


def test_append_to_keeps_what_is_there():
    buffer = bytearray(b"before")
    frontend.Sync().append_to(buffer)
    frontend.Flush().append_to(buffer)
    assert buffer == b"beforeS\0\0\0\x04H\0\0\0\x04"


def test_failed_append_leaves_the_buffer_alone():
    buffer = bytearray(b"before")
    with pytest.raises(EncodeError):
        frontend.Bind(b"", b"s", (), [b"1"], (2**15,)).append_to(buffer)
    assert buffer == b"before"


def test_body_of_more_than_two_gigabytes_cannot_be_encoded():
    """A length that overflowed would announce a short body, and the content would be read as messages."""

    class Enormous(bytes):
        def __len__(self) -> int:
            return MAXIMUM_LENGTH - 3

    with pytest.raises(EncodeError, match="longer than a length field can hold"):
        bytes(frontend.SASLResponse(Enormous()))


def test_no_limits_returns_a_new_list_each_time():
    first = no_limits()
    first[0] = 9
    assert no_limits() == [0] * 256
