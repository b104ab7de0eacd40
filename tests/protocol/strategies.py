"""Hypothesis strategies that generate every message of the protocol, by direction."""

from hypothesis import strategies as st

from protocol import authentication as auth
from protocol import backend, codes, copy_data, frontend, startup

cstrings = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b""))
names = cstrings.filter(bool)
data = st.binary(max_size=40)
values = st.lists(st.none() | data, max_size=6)
int16s = st.integers(-(2**15), 2**15 - 1)
int32s = st.integers(-(2**31), 2**31 - 1)
uint32s = st.integers(0, 2**32 - 1)
bytes8 = st.integers(0, 255)
formats = st.lists(int16s, max_size=4).map(tuple)
oids = st.lists(uint32s, max_size=4).map(tuple)
keys = st.binary(min_size=codes.MINIMUM_KEY, max_size=codes.MAXIMUM_KEY)
targets = st.sampled_from([codes.PREPARED_STATEMENT, codes.PORTAL])
statuses = st.sampled_from([codes.IDLE, codes.IN_TRANSACTION, codes.FAILED_TRANSACTION])
reports = st.lists(st.tuples(st.integers(1, 255), cstrings), max_size=6).map(tuple)
columns = st.builds(backend.FieldDescription, cstrings, uint32s, int16s, uint32s, int16s, int32s, int16s)

responses = st.one_of(
    st.builds(frontend.PasswordMessage, cstrings),
    st.builds(frontend.SASLInitialResponse, cstrings, st.none() | data),
    st.builds(frontend.SASLResponse, data),
    st.builds(frontend.GSSResponse, data),
)

frontend_messages = st.one_of(
    st.builds(frontend.Query, cstrings),
    st.builds(frontend.Parse, cstrings, cstrings, oids),
    st.builds(frontend.Bind, cstrings, cstrings, formats, values, formats),
    st.builds(frontend.Describe, targets, cstrings),
    st.builds(frontend.Close, targets, cstrings),
    st.builds(frontend.Execute, cstrings, int32s),
    st.builds(frontend.Sync),
    st.builds(frontend.Flush),
    st.builds(frontend.Terminate),
    st.builds(frontend.FunctionCall, uint32s, formats, values, int16s),
    st.builds(copy_data.CopyData, data),
    st.builds(copy_data.CopyDone),
    st.builds(copy_data.CopyFail, cstrings),
    responses,
)

authentication_messages = st.one_of(
    st.builds(auth.AuthenticationOk),
    st.builds(auth.AuthenticationKerberosV5),
    st.builds(auth.AuthenticationCleartextPassword),
    st.builds(auth.AuthenticationMD5Password, st.binary(min_size=4, max_size=4)),
    st.builds(auth.AuthenticationSCMCredential),
    st.builds(auth.AuthenticationGSS),
    st.builds(auth.AuthenticationGSSContinue, data),
    st.builds(auth.AuthenticationSSPI),
    st.builds(auth.AuthenticationSASL, st.lists(names, max_size=3).map(tuple)),
    st.builds(auth.AuthenticationSASLContinue, data),
    st.builds(auth.AuthenticationSASLFinal, data),
)

backend_messages = st.one_of(
    authentication_messages,
    st.builds(backend.BackendKeyData, int32s, keys),
    st.builds(backend.ParameterStatus, cstrings, cstrings),
    st.builds(backend.NegotiateProtocolVersion, int32s, st.lists(cstrings, max_size=4).map(tuple)),
    st.builds(backend.ReadyForQuery, statuses),
    st.builds(backend.RowDescription, st.lists(columns, max_size=5).map(tuple)),
    st.builds(backend.DataRow, values),
    st.builds(backend.CommandComplete, cstrings),
    st.builds(backend.ErrorResponse, reports),
    st.builds(backend.NoticeResponse, reports),
    st.builds(backend.NotificationResponse, int32s, cstrings, cstrings),
    st.builds(backend.ParseComplete),
    st.builds(backend.BindComplete),
    st.builds(backend.CloseComplete),
    st.builds(backend.NoData),
    st.builds(backend.PortalSuspended),
    st.builds(backend.EmptyQueryResponse),
    st.builds(backend.ParameterDescription, oids),
    st.builds(backend.CopyInResponse, bytes8, formats),
    st.builds(backend.CopyOutResponse, bytes8, formats),
    st.builds(backend.CopyBothResponse, bytes8, formats),
    st.builds(backend.FunctionCallResponse, st.none() | data),
    st.builds(copy_data.CopyData, data),
    st.builds(copy_data.CopyDone),
)

parameters = st.lists(st.tuples(names, cstrings), max_size=4).map(lambda pairs: (*pairs, (b"user", b"bob")))

startup_packets = st.one_of(
    st.builds(startup.StartupMessage, st.integers(3 << 16, (4 << 16) - 1), parameters),
    st.builds(startup.SSLRequest),
    st.builds(startup.GSSENCRequest),
    st.builds(startup.CancelRequest, int32s, keys),
)
