"""Authentication* messages: distinguished by their code; channel binding can be removed from AuthenticationSASL."""

import pytest

from protocol import authentication as auth
from protocol.errors import EncodeError, MessageError


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\x01",
        b"\0\0\0\x04sa",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0\0",
        b"\0\0\0\x05sal",
        b"\0\0\0\x05salty",
        b"\0\0\0\x0a",
        b"\0\0\0\x0aSCRAM-SHA-256\0",
        b"\0\0\0\x0aSCRAM-SHA-256",
        b"\0\0\0\x0a\0SCRAM-SHA-256\0\0",
    ],
)
def test_malformed_body_is_refused(body):
    with pytest.raises(MessageError):
        auth.decode(body)


def test_body_with_the_code_of_another_request_is_refused():
    with pytest.raises(MessageError, match="authentication code 5, not 3"):
        auth.AuthenticationCleartextPassword.decode(b"\0\0\0\x05salt")


def test_request_codes_are_those_of_the_manual():
    assert sorted(auth.REQUESTS) == [0, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    "message",
    [
        auth.AuthenticationMD5Password(b"abc"),
        auth.AuthenticationSASL((b"",)),
        auth.AuthenticationSASL((b"A\0B",)),
    ],
)
def test_fields_out_of_range_cannot_be_encoded(message):
    with pytest.raises(EncodeError):
        bytes(message)


def test_plus_mechanisms_are_removed_and_the_length_corrected():
    """A client without TLS must not be offered a mechanism ending in -PLUS."""
    offered = auth.decode(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    assert isinstance(offered, auth.AuthenticationSASL)
    assert bytes(offered.without_channel_binding()) == b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
    assert offered.mechanisms == (b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256")
