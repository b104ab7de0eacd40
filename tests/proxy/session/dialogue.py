"""A session between two scripted peers: frames of both directions in, changes out. The catalog is made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.capture.database import Database
from cache.catalog.tables import BoundRule, Catalog, Column, Link, LinkType, Relation
from cache.counts import Counts
from cache.keys import KeyTemplate
from cache.rules import TableRule
from cache.sql.memo import PlanMemo
from protocol import backend, frontend
from protocol.backend import FieldDescription
from proxy.session.session import Session
from tests.cache.catalog_answers import payload

if TYPE_CHECKING:
    from cache.changes import Change

OID = 4711
RULE = TableRule(
    "app", "public", "users", ("id",), ("name",),
    KeyTemplate.parse("users:{id}", database="app", schema="public", table="users", key_columns=("id",)),
    label="app.public.users",
)  # fmt: skip
PARAMETERS = {
    "server_version": "18.1",
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "search_path": '"$user", public',
    "in_hot_standby": "off",
}
FIELDS = (FieldDescription(b"id", OID, 1, 23, 4), FieldDescription(b"name", OID, 2, 25))


def catalog() -> Catalog:
    columns = {"id": Column("id", 1, 23, -1, base_oid=23), "name": Column("name", 2, 25, -1, base_oid=25)}
    relation = Relation(OID, "public", "users", "r", columns, unique=(frozenset({"id"}),))
    bound = BoundRule(RULE, relation, (columns["id"],), (columns["name"],))
    return Catalog(
        "app",
        bound=(bound,),
        relations={OID: relation},
        links={OID: (Link(OID, bound, LinkType.SELF),)},
        names={"users": (OID,)},
    )


class Sink:
    """The backlog as a session sees it."""

    def __init__(self):
        self.seq = 1
        self.changes: list[Change] = []

    def put(self, changes):
        self.changes += changes

    def block(self, changes):
        raise AssertionError("no chunk waits here")

    def release(self, block):
        raise AssertionError("no chunk waits here")


def fault(where, error):
    """The sessions of these tests have no fault of Rowtap's own."""
    raise AssertionError(f"internal error in {where}") from error


class Dialogue:
    """A session between two scripted peers. ``got`` returns and forgets what reached the backlog."""

    def __init__(
        self, *, learned=True, parameters=None, before_commit=False, sink=None, on_blind=True, on_internal_error=fault
    ):
        self.sink = sink or Sink()
        self.counts = Counts.of(["app.public.users"])
        self.reasons: list[str] = []
        self.database = Database("app", [RULE], PlanMemo(100))
        if learned:
            self.database.catalog, self.database.learned, self.database.due_at = catalog(), True, 1 << 62
        self.session = Session(
            self.database,
            self.sink,
            self.counts,
            PARAMETERS | (parameters or {}),
            {"user": "me"},
            on_internal_error=on_internal_error,
            on_blind=self.reasons.append if on_blind else None,
            before_commit=before_commit,
        )

    def learn(self):
        """Answer the catalog query if the session wants to ask it."""
        question = self.session.wants_catalog()
        if question is not None:
            question.answer(payload("users", oid=OID, key_type="int4"))

    def client(self, *messages):
        self.session.frontend(b"".join(map(bytes, messages)))
        return self

    def server(self, *messages):
        self.session.backend(b"".join(map(bytes, messages)))
        return self

    def got(self):
        found = [
            f"{change.kind.name} {change.key.decode()}"
            + (f"={change.value.decode()}" if isinstance(change.value, bytes) else "")
            for change in self.sink.changes
        ]
        self.sink.changes.clear()
        return found


def state(d):
    """Everything of a session that may matter later, and what came of it so far. Of a portal that has ended nothing
    does."""
    session, objects, buffer = d.session, d.session._objects, d.session._outcomes.buffer
    start = buffer.start and buffer.start[0]
    return {
        "changes": [(one.kind, one.key, one.value, one.seq, one.may_commit_later) for one in d.sink.changes],
        "counted": (dict(d.counts.statements), dict(d.counts.unfilled)),
        "statements": {name: (one.text, one.types, one.description) for name, one in objects.statements.items()},
        "portals": set(objects.portals),
        "transaction": ([(one.kind, one.key) for one in buffer.pending], buffer.dirty, buffer.explicit, start),
        "session": (session.blinded, session.idle, session.outstanding, session.over_limit, session._replies.status),
        "relay": (session.between_messages, session.is_bulk(b"x"), session.message_rest(b"x" * 9)),
        "catalog": (d.database.certain, d.database.learned, d.database.due_at > 0),
        "reasons": d.reasons,
    }


def q(text):
    return frontend.Query(text.encode())


def rows(*values):
    return [backend.RowDescription(FIELDS), *(backend.DataRow([str(key).encode(), name]) for key, name in values)]


def done(tag):
    return backend.CommandComplete(tag.encode())


def ready(status="I"):
    return backend.ReadyForQuery(ord(status))


def error(severity="ERROR"):
    return backend.ErrorResponse.of(severity, "XX000", "no")


PARSED, BOUND = backend.ParseComplete(), backend.BindComplete()
