"""COPY's messages are the same in both directions."""

import pytest

from protocol import backend, copy_data, frontend
from protocol.errors import EncodeError, MessageError


def test_both_directions():
    for decode in (frontend.decode, backend.decode):
        assert decode(copy_data.COPY_DATA, b"1\t\0\n") == copy_data.CopyData(b"1\t\0\n")
        assert decode(copy_data.COPY_DONE, b"") == copy_data.CopyDone()
    assert frontend.decode(copy_data.COPY_FAIL, b"no\0") == copy_data.CopyFail(b"no")


def test_only_a_frontend_fails():
    with pytest.raises(MessageError):
        backend.decode(copy_data.COPY_FAIL, b"no\0")


@pytest.mark.parametrize("body", [b"", b"no", b"no\0no\0"])
def test_malformed_fail(body):
    with pytest.raises(MessageError):
        copy_data.CopyFail.decode(body)


def test_malformed_done():
    with pytest.raises(MessageError):
        copy_data.CopyDone.decode(b"\0")


def test_fail_with_nul():
    with pytest.raises(EncodeError):
        bytes(copy_data.CopyFail(b"a\0b"))


def test_fixed_frame():
    assert copy_data.COPY_DONE_FRAME == b"c\0\0\0\x04"
