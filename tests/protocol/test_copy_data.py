"""The messages of COPY have the same form in both directions."""

import pytest

from protocol import backend, copy_data, frontend
from protocol.errors import EncodeError, MessageError


def test_copy_messages_are_decoded_in_both_directions():
    for decode in (frontend.decode, backend.decode):
        assert decode(copy_data.COPY_DATA, b"1\t\0\n") == copy_data.CopyData(b"1\t\0\n")
        assert decode(copy_data.COPY_DONE, b"") == copy_data.CopyDone()
    assert frontend.decode(copy_data.COPY_FAIL, b"no\0") == copy_data.CopyFail(b"no")


def test_copy_fail_from_a_backend_is_refused():
    with pytest.raises(MessageError):
        backend.decode(copy_data.COPY_FAIL, b"no\0")


@pytest.mark.parametrize("body", [b"", b"no", b"no\0no\0"])
def test_malformed_copy_fail_is_refused(body):
    with pytest.raises(MessageError):
        copy_data.CopyFail.decode(body)


def test_copy_done_with_a_body_is_refused():
    with pytest.raises(MessageError):
        copy_data.CopyDone.decode(b"\0")


def test_copy_fail_with_nul_in_its_text_cannot_be_encoded():
    with pytest.raises(EncodeError):
        bytes(copy_data.CopyFail(b"a\0b"))


def test_frame_encoded_once_has_the_manuals_bytes():
    assert copy_data.COPY_DONE_FRAME == b"c\0\0\0\x04"
