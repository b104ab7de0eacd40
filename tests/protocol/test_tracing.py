"""A message is described in one printable line that shows no value."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import authentication as auth
from protocol import backend, codes, copy_data, frontend, startup, tracing
from tests.protocol import samples, strategies


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (frontend.Query(b"SELECT 'secret'"), "Query query=15 bytes"),
        (frontend.Parse(b"s1", b"SELECT $1", (23,)), "Parse name='s1' query=9 bytes parameter_types=1 [23]"),
        (
            frontend.Bind(b"", b"s1", (0,), [b"x", None, b"yy"]),
            (
                "Bind portal='' statement='s1' parameter_formats=1 [0] parameters=3 [1 byte, NULL, 2 bytes]"
                " result_formats=0 []"
            ),
        ),
        (frontend.Describe(codes.PORTAL, b"p"), "Describe kind=P name='p'"),
        (frontend.Execute(b"p", 10), "Execute portal='p' maximum_rows=10"),
        (frontend.Sync(), "Sync"),
        (frontend.PasswordMessage(b"hunter2"), "PasswordMessage password=7 bytes"),
        (
            frontend.SASLInitialResponse(b"SCRAM-SHA-256", None),
            "SASLInitialResponse mechanism='SCRAM-SHA-256' data=NULL",
        ),
        (copy_data.CopyData(b"secret"), "CopyData data=6 bytes"),
        (auth.AuthenticationSASL((b"A", b"B")), "AuthenticationSASL mechanisms=2 ['A', 'B']"),
        (backend.BackendKeyData(7, b"key!"), "BackendKeyData process_id=7 secret_key=4 bytes"),
        (backend.ParameterStatus(b"TimeZone", b"UTC"), "ParameterStatus name='TimeZone' value=3 bytes"),
        (
            backend.NegotiateProtocolVersion(codes.PROTOCOL_3_2),
            "NegotiateProtocolVersion version=3.2 unrecognized=0 []",
        ),
        (backend.ReadyForQuery(codes.IN_TRANSACTION), "ReadyForQuery status=T"),
        (
            backend.RowDescription((backend.FieldDescription(b"secret", 16_385, 2, 25, -1, -1, 0),)),
            "RowDescription fields=1 [16385.2 type 25 format 0]",
        ),
        (backend.DataRow([b"secret", None]), "DataRow values=2 [6 bytes, NULL]"),
        (backend.DataRow([b""] * 9), f"DataRow values=9 [{'0 bytes, ' * 8}…]"),
        (backend.CommandComplete(b"UPDATE 1"), "CommandComplete tag='UPDATE 1'"),
        (
            backend.ErrorResponse.of("ERROR", "23505", "duplicate key", detail="Key (id)=(42) already exists."),
            "ErrorResponse S='ERROR' V='ERROR' C='23505' M=13 bytes D=29 bytes",
        ),
        (backend.NoticeResponse(((1, b"x"),)), "NoticeResponse 0x01=1 byte"),
        (backend.FunctionCallResponse(None), "FunctionCallResponse value=NULL"),
        (
            startup.StartupMessage(codes.PROTOCOL_3_2, ((b"user", b"bob"), (b"options", b"-c x=y"))),
            "StartupMessage version=3.2 parameters=2 ['user': 3 bytes, 'options': 6 bytes]",
        ),
        (startup.CancelRequest(7, b"key!"), "CancelRequest process_id=7 secret_key=4 bytes"),
        (startup.SSLRequest(), "SSLRequest"),
    ],
)
def test_message_is_rendered_with_its_fields_and_no_value(message, line):
    assert tracing.render(message) == line


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31m", b"\xff\0'", b"n" * 64])
def test_name_of_any_bytes_stays_on_its_line(name):
    line = tracing.render(frontend.Close(codes.PORTAL, name))
    assert line.isascii() or line.endswith("…")
    assert line.isprintable()
    assert len(line) < 100


messages = strategies.frontend_messages | strategies.backend_messages | strategies.startup_packets


@given(messages)
def test_any_message_has_one_printable_line(message):
    line = tracing.render(message)
    assert line.isprintable()
    assert line.startswith(type(message).__name__)


SECRET = b"Xq7-secret"

SECRETIVE = [
    frontend.Query(SECRET),
    frontend.Parse(b"", SECRET),
    frontend.Bind(b"", b"", (), [SECRET]),
    frontend.FunctionCall(1, (), [SECRET]),
    frontend.PasswordMessage(SECRET),
    frontend.SASLInitialResponse(b"X", SECRET),
    frontend.SASLResponse(SECRET),
    frontend.GSSResponse(SECRET),
    copy_data.CopyData(SECRET),
    copy_data.CopyFail(SECRET),
    auth.AuthenticationMD5Password(SECRET[:4]),
    auth.AuthenticationGSSContinue(SECRET),
    auth.AuthenticationSASLContinue(SECRET),
    auth.AuthenticationSASLFinal(SECRET),
    backend.BackendKeyData(1, SECRET),
    backend.ParameterStatus(b"application_name", SECRET),
    backend.RowDescription((backend.FieldDescription(SECRET),)),
    backend.DataRow([SECRET]),
    backend.ErrorResponse.of("ERROR", "00000", SECRET.decode(), SECRET.decode(), SECRET.decode()),
    backend.NoticeResponse.of("NOTICE", "00000", SECRET.decode()),
    backend.NotificationResponse(1, SECRET, SECRET),
    backend.FunctionCallResponse(SECRET),
    startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", SECRET),)),
    startup.CancelRequest(1, SECRET),
]


@pytest.mark.parametrize("message", SECRETIVE, ids=samples.name)
def test_values_are_never_shown(message):
    assert "Xq7" not in tracing.render(message)


def test_malformed_bytes_are_rendered_with_the_reason():
    assert (
        tracing.render_frontend(frontend.BIND, b"\0\0\0") == "malformed Bind of 3 bytes: ends within a count at byte 2"
    )
    assert tracing.render_frontend(frontend.PASSWORD, b"pw", frontend.PasswordMessage) == (
        "malformed PasswordMessage of 2 bytes: string at byte 0 has no end"
    )
    assert tracing.render_frontend(1, b"pw") == (
        "malformed message of type 0x01 of 2 bytes: no frontend message has the type byte 0x01"
    )
    assert tracing.render_backend(backend.READY_FOR_QUERY, b"") == (
        "malformed ReadyForQuery of 0 bytes: no transaction status in 0 bytes"
    )
    assert tracing.render_backend(backend.AUTHENTICATION, b"\0\0\0\x01") == (
        "malformed Authentication of 4 bytes: no authentication request has the code 1"
    )
    assert tracing.render_startup(b"GET / HTTP/1.1").startswith("malformed startup packet of 14 bytes: invalid length")


def test_bytes_are_rendered_like_the_message_they_hold():
    assert tracing.render_frontend(frontend.PASSWORD, b"pw\0") == "SASLResponse data=3 bytes"
    assert tracing.render_backend(backend.COMMAND_COMPLETE, b"BEGIN\0") == "CommandComplete tag='BEGIN'"
    assert tracing.render_startup(startup.SSL_REQUEST_FRAME) == "SSLRequest"


def test_messages_are_named_by_their_type_byte():
    assert tracing.name_frontend(frontend.BIND) == "Bind"
    assert tracing.name_frontend(frontend.PASSWORD) == "SASLResponse"
    assert tracing.name_frontend(frontend.PASSWORD, frontend.PasswordMessage) == "PasswordMessage"
    assert tracing.name_backend(backend.DATA_ROW) == "DataRow"
    assert tracing.name_backend(backend.AUTHENTICATION) == "Authentication"
    assert tracing.name_backend(1) == "message of type 0x01"


@given(st.integers(0, 255), st.binary(max_size=60))
def test_no_bytes_raise(kind, body):
    for line in (
        tracing.render_frontend(kind, body),
        tracing.render_backend(kind, body),
        tracing.render_startup(body),
    ):
        assert re.fullmatch(r"[^\n]+", line)
