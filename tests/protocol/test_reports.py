"""ErrorResponse and NoticeResponse: access to fields, and reports that Rowtap makes itself."""

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


def test_fields_are_found_by_name_or_code():
    assert ERROR.severity == b"ERROR"
    assert ERROR.sqlstate == b"23505"
    assert ERROR.message == b"doppelt"
    assert ERROR.get(ord("F")) == b"nbtinsert.c"
    assert ERROR.get(codes.HINT) is None


def test_severity_is_the_localized_one_before_9_6():
    assert backend.NoticeResponse(((codes.SEVERITY, b"NOTICE"),)).severity == b"NOTICE"


def test_missing_fields_are_empty():
    empty = backend.ErrorResponse(())
    assert (empty.severity, empty.sqlstate, empty.message) == (b"", b"", b"")


def test_report_of_our_own_has_the_given_texts_in_utf8():
    error = backend.ErrorResponse.of("FATAL", "53300", "sorry, zu viele Verbindungen: é")
    assert type(error) is backend.ErrorResponse
    assert bytes(error) == (
        b"E\0\0\0\x3cSFATAL\0VFATAL\0C53300\0M" + "sorry, zu viele Verbindungen: é".encode() + b"\0\0"
    )


def test_report_of_our_own_may_have_detail_and_hint():
    notice = backend.NoticeResponse.of("WARNING", "01000", "m", detail="d", hint="h")
    assert bytes(notice) == b"N\0\0\0\x27SWARNING\0VWARNING\0C01000\0Mm\0Dd\0Hh\0\0"


def test_error_and_notice_of_equal_fields_differ():
    error: object = backend.ErrorResponse(())
    assert error != backend.NoticeResponse(())


def test_backend_module_exports_both_reports():
    assert (backend.ErrorResponse, backend.NoticeResponse) == (reports.ErrorResponse, reports.NoticeResponse)
    assert (ord("E"), ord("N")) == (backend.ERROR_RESPONSE, backend.NOTICE_RESPONSE)


@pytest.mark.parametrize("body", [b"", b"S", b"SERROR", b"SERROR\0", b"\0\0", b"SERROR\0\0C"])
def test_malformed_body_is_refused(body):
    with pytest.raises(MessageError):
        reports.ErrorResponse.decode(body)


@pytest.mark.parametrize("fields", [((0, b""),), ((256, b""),), ((codes.MESSAGE, b"\0"),)])
def test_fields_out_of_range_cannot_be_encoded(fields):
    with pytest.raises(EncodeError):
        bytes(reports.NoticeResponse(fields))
