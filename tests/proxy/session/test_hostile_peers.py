"""Whatever bytes a peer sends, a session never takes them for a fault of Rowtap's own, and never raises."""

from __future__ import annotations

from struct import pack

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protocol import backend, codes, frontend
from tests.depth import depth, patient
from tests.proxy.session.dialogue import FIELDS, Dialogue, done, error, q, ready
from tests.proxy.session.test_fast_path_differential import Blocks

CLIENT = [
    q("SELECT id, name FROM users"),
    q("SELECT name FROM users WHERE id = 1"),
    q("UPDATE users SET name = 'a' WHERE id = 1; SELECT id FROM users"),
    q("BEGIN"),
    q("COMMIT"),
    q("PREPARE p AS UPDATE users SET name = $1 WHERE id = $2"),
    q("EXECUTE p ('é', 1)"),
    q("DECLARE c CURSOR FOR SELECT * FROM users"),
    q("FETCH c"),
    q("SET client_encoding = 'SJIS'"),
    frontend.Parse(b"", b"SELECT id, name FROM users WHERE id = $1", (23,)),
    frontend.Parse(b"s", b"UPDATE users SET name = $1 WHERE id = ANY($2)"),
    frontend.Parse(b"u", b"PREPARE p AS SELECT name FROM users WHERE id = $1"),
    frontend.Bind(b"", b"", (1,), [b"\0\0\0\1"], (1,)),
    frontend.Bind(b"p", b"s", (0, 1), [b"x", b"{1}"], (0,)),
    frontend.Bind(b"p", b"u"),
    frontend.Describe(codes.PORTAL, b""),
    frontend.Describe(codes.PREPARED_STATEMENT, b"s"),
    frontend.Execute(b""),
    frontend.Execute(b"p", 1),
    frontend.Close(codes.PORTAL, b"p"),
    frontend.Sync(),
    frontend.FunctionCall(1, (), [], 0),
    frontend.Terminate(),
]
SERVER = [
    backend.RowDescription(FIELDS),
    backend.RowDescription(FIELDS[1:]),
    backend.DataRow([b"1", b"ann"]),
    backend.DataRow([b"ann"]),
    backend.DataRow([]),
    done("SELECT 1"),
    done("UPDATE 1"),
    done("UPDATE " + "9" * 4400),
    done("COMMIT"),
    done("PREPARE"),
    ready(),
    ready("T"),
    ready("E"),
    error(),
    error("FATAL"),
    backend.ParseComplete(),
    backend.BindComplete(),
    backend.CloseComplete(),
    backend.NoData(),
    backend.EmptyQueryResponse(),
    backend.PortalSuspended(),
    backend.ParameterDescription((23,)),
    backend.ParameterStatus(b"search_path", b'"$user", "x'),
    backend.ParameterStatus(b"server_version", b"x.y"),
    backend.ParameterStatus(b"client_encoding", b"\xff"),
    backend.CopyInResponse(0, (0,)),
    backend.FunctionCallResponse(b"x"),
]


def frames(messages, types):
    """Messages as they should be, with some bytes of their bodies changed or lost, and types with any body."""
    whole = st.sampled_from([bytes(message) for message in messages])
    changed = st.tuples(whole, st.floats(0, 1), st.binary(max_size=4)).map(_changed)
    cut = st.tuples(whole, st.floats(0, 1)).map(lambda found: _framed(found[0][0], _part(found[0][5:], found[1])))
    random = st.tuples(st.sampled_from(types), st.binary(max_size=12)).map(lambda found: _framed(*found))
    return st.lists(st.one_of(whole, whole, whole, changed, cut, random), min_size=1, max_size=8).map(b"".join)


def _framed(kind, body):
    return pack("!BI", kind, len(body) + 4) + body


def _part(body, part):
    return body[: round(part * len(body))]


def _changed(found):
    message, part, other = found
    at = 5 + round(part * (len(message) - 5))
    return _framed(message[0], (message[5:at] + other + message[at + len(other) :])[: len(message) - 5])


peers = st.lists(
    st.one_of(
        st.tuples(st.just("client"), frames(CLIENT, b"QPBDECSFXcfd")),
        st.tuples(st.just("server"), frames(SERVER, b"TDCEZ123nsISGVWtN")),
    ),
    max_size=12,
)


@patient
@settings(max_examples=depth(150, 20_000), deadline=None, suppress_health_check=list(HealthCheck))
@given(peers, st.booleans(), st.booleans())
@example([("server", b"Z\0\0\0\4")], True, False)
@example([("client", b"E\0\0\0\6\1\1")], True, False)
@example([("client", b"B\0\0\0\6\1\1")], True, True)
@example(
    [
        (
            "client",
            bytes(frontend.Parse(b"", b"UPDATE users SET name = $1 WHERE id = $3"))
            + bytes(frontend.Bind(b"", b"", (0, 0), [b"a", b"1", b"2"]))
            + bytes(frontend.Execute(b"")),
        )
    ],
    True,
    True,
)
@example(
    [
        ("client", bytes(q("SELECT id, name FROM users")) + bytes(q("SELECT 1"))),
        ("server", bytes(backend.RowDescription(FIELDS)) + bytes(backend.DataRow([b"1"]))),
    ],
    True,
    False,
)
@example([("client", bytes(q("SELECT id, name FROM users"))),
          ("server", bytes(backend.RowDescription(FIELDS)) + bytes(backend.DataRow([b"1"])) + bytes(done("SELECT 1"))
           + bytes(ready()))], True, False)  # fmt: skip
def test_bytes_of_a_peer_blind_the_session_at_most(events, learned, before_commit):
    d = Dialogue(learned=learned, before_commit=before_commit, sink=Blocks())
    session = d.session
    for peer, data in events:
        if peer == "client":
            session.frontend(data)
            if session.before_forwarding is not None:
                session.before_forwarding.close()  # type: ignore[attr-defined]  # a coroutine, not awaited here
        else:
            session.backend(data)
    session.closed(backend_ended=False)
    assert session.blinded is bool(d.reasons)
