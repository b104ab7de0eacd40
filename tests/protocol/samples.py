"""At least one sample of every message with its bytes, written by hand from the manual's "Message Formats"."""

from protocol import authentication as auth
from protocol import backend, codes, copy_data, frontend, startup
from protocol.backend import FieldDescription
from protocol.message import Message

FRONTEND: list[tuple[Message, bytes]] = [
    (frontend.Query(b"SELECT 1"), b"Q\0\0\0\x0dSELECT 1\0"),
    (frontend.Query(b""), b"Q\0\0\0\x05\0"),
    (frontend.Parse(b"", b"SELECT"), b"P\0\0\0\x0e\0SELECT\0\0\0"),
    (
        frontend.Parse(b"s1", b"SELECT $1, $2", (23, 4_294_967_295)),
        b"P\0\0\0\x1fs1\0SELECT $1, $2\0\0\x02\0\0\0\x17\xff\xff\xff\xff",
    ),
    (frontend.Bind(b"", b""), b"B\0\0\0\x0c\0\0\0\0\0\0\0\0"),
    (
        frontend.Bind(b"p", b"s", (0, 1), [b"ab", None, b""], (1,)),
        b"B\0\0\0\x22p\0s\0\0\x02\0\0\0\x01\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0\0\x01\0\x01",
    ),
    (frontend.Describe(codes.PREPARED_STATEMENT, b"s"), b"D\0\0\0\x07Ss\0"),
    (frontend.Describe(codes.PORTAL, b""), b"D\0\0\0\x06P\0"),
    (frontend.Close(codes.PORTAL, b"p"), b"C\0\0\0\x07Pp\0"),
    (frontend.Execute(b"", 0), b"E\0\0\0\x09\0\0\0\0\0"),
    (frontend.Execute(b"p", -1), b"E\0\0\0\x0ap\0\xff\xff\xff\xff"),
    (frontend.Sync(), b"S\0\0\0\x04"),
    (frontend.Flush(), b"H\0\0\0\x04"),
    (frontend.Terminate(), b"X\0\0\0\x04"),
    (
        frontend.FunctionCall(954, (1,), [b"\0\0\0\x05", None], 1),
        b"F\0\0\0\x1c\0\0\x03\xba\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x05\xff\xff\xff\xff\0\x01",
    ),
    (frontend.PasswordMessage(b"secret"), b"p\0\0\0\x0bsecret\0"),
    (
        frontend.SASLInitialResponse(b"SCRAM-SHA-256", b"n,,n=,r=x"),
        b"p\0\0\0\x1fSCRAM-SHA-256\0\0\0\0\x09n,,n=,r=x",
    ),
    (frontend.SASLInitialResponse(b"X", None), b"p\0\0\0\x0aX\0\xff\xff\xff\xff"),
    (frontend.SASLResponse(b"c=biws"), b"p\0\0\0\x0ac=biws"),
    (frontend.GSSResponse(b"\x60\0"), b"p\0\0\0\x06\x60\0"),
    (copy_data.CopyData(b"1\tx\n"), b"d\0\0\0\x081\tx\n"),
    (copy_data.CopyDone(), b"c\0\0\0\x04"),
    (copy_data.CopyFail(b"no"), b"f\0\0\0\x07no\0"),
]

BACKEND: list[tuple[Message, bytes]] = [
    (auth.AuthenticationOk(), b"R\0\0\0\x08\0\0\0\0"),
    (auth.AuthenticationKerberosV5(), b"R\0\0\0\x08\0\0\0\x02"),
    (auth.AuthenticationCleartextPassword(), b"R\0\0\0\x08\0\0\0\x03"),
    (auth.AuthenticationMD5Password(b"salt"), b"R\0\0\0\x0c\0\0\0\x05salt"),
    (auth.AuthenticationSCMCredential(), b"R\0\0\0\x08\0\0\0\x06"),
    (auth.AuthenticationGSS(), b"R\0\0\0\x08\0\0\0\x07"),
    (auth.AuthenticationGSSContinue(b"\x60\0"), b"R\0\0\0\x0a\0\0\0\x08\x60\0"),
    (auth.AuthenticationSSPI(), b"R\0\0\0\x08\0\0\0\x09"),
    (auth.AuthenticationSASL((b"A", b"B-PLUS")), b"R\0\0\0\x12\0\0\0\x0aA\0B-PLUS\0\0"),
    (auth.AuthenticationSASLContinue(b"r=x"), b"R\0\0\0\x0b\0\0\0\x0br=x"),
    (auth.AuthenticationSASLFinal(b"v=y"), b"R\0\0\0\x0b\0\0\0\x0cv=y"),
    (backend.BackendKeyData(7, b"\0\x01\x02\x03"), b"K\0\0\0\x0c\0\0\0\x07\0\x01\x02\x03"),
    (backend.BackendKeyData(7, b"k" * 256), b"K\0\0\x01\x08\0\0\0\x07" + b"k" * 256),
    (backend.ParameterStatus(b"TimeZone", b"UTC"), b"S\0\0\0\x11TimeZone\0UTC\0"),
    (
        backend.NegotiateProtocolVersion(codes.PROTOCOL_3_0, (b"_pq_.a", b"_pq_.b")),
        b"v\0\0\0\x1a\0\x03\0\0\0\0\0\x02_pq_.a\0_pq_.b\0",
    ),
    (backend.ReadyForQuery(codes.IDLE), b"Z\0\0\0\x05I"),
    (backend.ReadyForQuery(codes.IN_TRANSACTION), b"Z\0\0\0\x05T"),
    (backend.ReadyForQuery(codes.FAILED_TRANSACTION), b"Z\0\0\0\x05E"),
    (backend.RowDescription(()), b"T\0\0\0\x06\0\0"),
    (
        backend.RowDescription((FieldDescription(b"id", 16_385, 1, 23, 4, -1, 1), FieldDescription(b"ctid", 1, -1))),
        (
            b"T\0\0\0\x32\0\x02"
            b"id\0\0\0\x40\x01\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01"
            b"ctid\0\0\0\0\x01\xff\xff\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
        ),
    ),
    (backend.DataRow([]), b"D\0\0\0\x06\0\0"),
    (backend.DataRow([b"42", None, b""]), b"D\0\0\0\x14\0\x03\0\0\0\x0242\xff\xff\xff\xff\0\0\0\0"),
    (backend.CommandComplete(b"INSERT 0 1"), b"C\0\0\0\x0fINSERT 0 1\0"),
    (
        backend.ErrorResponse(((codes.SEVERITY, b"ERROR"), (codes.SQLSTATE, b"22012"), (codes.MESSAGE, b"no"))),
        b"E\0\0\0\x17SERROR\0C22012\0Mno\0\0",
    ),
    (backend.NoticeResponse(()), b"N\0\0\0\x05\0"),
    (backend.NotificationResponse(9, b"ch", b""), b"A\0\0\0\x0c\0\0\0\x09ch\0\0"),
    (backend.ParseComplete(), b"1\0\0\0\x04"),
    (backend.BindComplete(), b"2\0\0\0\x04"),
    (backend.CloseComplete(), b"3\0\0\0\x04"),
    (backend.NoData(), b"n\0\0\0\x04"),
    (backend.PortalSuspended(), b"s\0\0\0\x04"),
    (backend.EmptyQueryResponse(), b"I\0\0\0\x04"),
    (backend.ParameterDescription((23, 25)), b"t\0\0\0\x0e\0\x02\0\0\0\x17\0\0\0\x19"),
    (backend.CopyInResponse(0, (0, 0)), b"G\0\0\0\x0b\0\0\x02\0\0\0\0"),
    (backend.CopyOutResponse(1, (1,)), b"H\0\0\0\x09\x01\0\x01\0\x01"),
    (backend.CopyBothResponse(0), b"W\0\0\0\x07\0\0\0"),
    (backend.FunctionCallResponse(b"\0\0\0\x01"), b"V\0\0\0\x0c\0\0\0\x04\0\0\0\x01"),
    (backend.FunctionCallResponse(None), b"V\0\0\0\x08\xff\xff\xff\xff"),
    (copy_data.CopyData(b""), b"d\0\0\0\x04"),
    (copy_data.CopyDone(), b"c\0\0\0\x04"),
]

STARTUP: list[tuple[startup.Packet, bytes]] = [
    (
        startup.StartupMessage(codes.PROTOCOL_3_0, ((b"user", b"bob"), (b"database", b"app"))),
        b"\0\0\0\x1f\0\x03\0\0user\0bob\0database\0app\0\0",
    ),
    (startup.StartupMessage(codes.PROTOCOL_3_2, ((b"user", b"bob"),)), b"\0\0\0\x12\0\x03\0\x02user\0bob\0\0"),
    (startup.SSLRequest(), b"\0\0\0\x08\x04\xd2\x16\x2f"),
    (startup.GSSENCRequest(), b"\0\0\0\x08\x04\xd2\x16\x30"),
    (startup.CancelRequest(7, b"\0\x01\x02\x03"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\x01\x02\x03"),
    (startup.CancelRequest(7, b"k" * 256), b"\0\0\x01\x0c\x04\xd2\x16\x2e\0\0\0\x07" + b"k" * 256),
]

TO_THE_END = (
    copy_data.CopyData,
    frontend.SASLResponse,
    frontend.GSSResponse,
    auth.AuthenticationGSSContinue,
    auth.AuthenticationSASLContinue,
    auth.AuthenticationSASLFinal,
)
"""Messages whose last field has no length of its own: with more or fewer bytes they are still valid."""


def name(sample: object) -> str:
    """The parametrization ID of a sample."""
    return type(sample).__name__ if not isinstance(sample, bytes) else ""
