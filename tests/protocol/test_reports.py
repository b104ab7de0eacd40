"""ErrorResponse and NoticeResponse: fields by name, and reports of our own."""

import pytest

from protocol import backend, codes, reports
from protocol.errors import EncodeError, MessageError

ERROR = backend.ErrorResponse(
    (
        (codes.SEVERITY, b"FEHLER"),
        (codes.SEVERITY_UNLOCALIZED, b"ERROR"),
        (codes.SQLSTATE, b"23505"),
        (codes.MESSAGE, b"doppelt"),
        (ord("F"), b"nbtinsert.c"),
    )
)


def test_fields_by_name():
    assert ERROR.severity == b"ERROR"
    assert ERROR.sqlstate == b"23505"
    assert ERROR.message == b"doppelt"
    assert ERROR.get(ord("F")) == b"nbtinsert.c"
    assert ERROR.get(codes.HINT) is None


def test_severity_before_9_6():
    assert backend.NoticeResponse(((codes.SEVERITY, b"NOTICE"),)).severity == b"NOTICE"


def test_missing():
    empty = backend.ErrorResponse(())
    assert (empty.severity, empty.sqlstate, empty.message) == (b"", b"", b"")


def test_of_our_own():
    error = backend.ErrorResponse.of("FATAL", "53300", "sorry, zu viele Verbindungen: é")
    assert type(error) is backend.ErrorResponse
    assert bytes(error) == (
        b"E\0\0\0\x3cSFATAL\0VFATAL\0C53300\0M" + "sorry, zu viele Verbindungen: é".encode() + b"\0\0"
    )


def test_of_our_own_with_detail_and_hint():
    notice = backend.NoticeResponse.of("WARNING", "01000", "m", detail="d", hint="h")
    assert bytes(notice) == b"N\0\0\0\x27SWARNING\0VWARNING\0C01000\0Mm\0Dd\0Hh\0\0"


def test_errors_and_notices_differ():
    error: object = backend.ErrorResponse(())
    assert error != backend.NoticeResponse(())


def test_names_are_read_from_backend():
    assert (backend.ErrorResponse, backend.NoticeResponse) == (reports.ErrorResponse, reports.NoticeResponse)
    assert (ord("E"), ord("N")) == (backend.ERROR_RESPONSE, backend.NOTICE_RESPONSE)


@pytest.mark.parametrize("body", [b"", b"S", b"SERROR", b"SERROR\0", b"\0\0", b"SERROR\0\0C"])
def test_malformed(body):
    with pytest.raises(MessageError):
        reports.ErrorResponse.decode(body)


@pytest.mark.parametrize("fields", [((0, b""),), ((256, b""),), ((codes.MESSAGE, b"\0"),)])
def test_what_cannot_be_encoded(fields):
    with pytest.raises(EncodeError):
        bytes(reports.NoticeResponse(fields))
