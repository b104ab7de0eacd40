"""A model of PostgreSQL at the level of messages: what it answers to each, without running anything.

It knows transactions, prepared statements and portals, and that an error ignores what follows it up to Sync; what a
statement returns is told beforehand. ``fails`` says of each message whether the server refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from protocol import backend, codes, frontend
from protocol.backend import FieldDescription
from tests.proxy.session.dialogue import FIELDS, OID, ready

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocol.message import Message

BALANCE = (FieldDescription(b"balance", 99, 3, 23, 4),)
COUNT = (FieldDescription(b"count", 0, 0, 20, 8),)
AGAIN = tuple(FieldDescription(one.name, OID + 1, one.column_number, one.type_oid, 4) for one in FIELDS)
"""The columns of a table that has been created again: the catalog does not know it."""


@dataclass(frozen=True)
class Statement:
    """What one SQL statement does."""

    text: str
    tag: str = "SELECT {}"
    """Its command tag, with a place for the number of rows."""
    fields: tuple[FieldDescription, ...] = ()
    rows: tuple[tuple[bytes | None, ...], ...] = ()
    status: str = ""
    """The transaction status it leads to, if it changes it."""
    parameter: tuple[bytes, bytes] | None = None
    """A run-time parameter whose new value is reported before ReadyForQuery."""
    name: bytes = b""
    """The prepared statement or cursor it makes or runs."""


@dataclass
class ModelPortal:
    statement: Statement
    rows: list[tuple[bytes | None, ...]]
    ended: bool = False


@dataclass
class ModelServer:
    """Answers messages one after the other."""

    status: str = "I"
    statements: dict[bytes, Statement] = field(default_factory=dict)
    portals: dict[bytes, ModelPortal] = field(default_factory=dict)
    skipping: bool = False
    reported: list[tuple[bytes, bytes]] = field(default_factory=list)

    def answer(self, message: Message, known: Callable[[bytes], Sequence[Statement]], *, fails: bool) -> list[Message]:
        """The replies to one message; ``known`` finds the statements of a text."""
        if isinstance(message, frontend.Sync):
            self.skipping = False
            return self._ready()
        if self.skipping:
            return []
        if isinstance(message, frontend.Query):
            return self._query(known(message.query), fails=fails)
        if isinstance(message, frontend.Parse):
            replies = self._parse(message, known, fails=fails)
        elif isinstance(message, frontend.Bind):
            replies = self._bind(message, fails=fails)
        elif isinstance(message, frontend.Describe):
            replies = self._describe(message, fails=fails)
        elif isinstance(message, frontend.Close):
            where: dict[bytes, Statement] | dict[bytes, ModelPortal]
            where = self.statements if message.kind == codes.PREPARED_STATEMENT else self.portals
            where.pop(message.name, None)
            replies = [backend.CloseComplete()]
        else:
            assert isinstance(message, frontend.Execute)
            replies = self._execute(message, fails=fails)
        if isinstance(replies[-1], backend.ErrorResponse):
            self.skipping = True
        return replies

    def _ready(self) -> list[Message]:
        if self.status == "I":
            self.portals.clear()
        told: list[Message] = [backend.ParameterStatus(*one) for one in self.reported]
        self.reported.clear()
        return [*told, ready(self.status)]

    def _error(self) -> Message:
        if self.status == "T":
            self.status = "E"
        self.reported.clear()
        return backend.ErrorResponse.of("ERROR", "XX000", "no")

    def _query(self, statements: Sequence[Statement], *, fails: bool) -> list[Message]:
        replies: list[Message] = []
        self.statements.pop(b"", None)
        for number, statement in enumerate(statements):
            failing = fails and number == len(statements) - 1
            if self.refuses(statement) or (failing and len(statement.rows) % 2):
                replies.append(self._error())
                break
            if statement.fields:
                replies.append(backend.RowDescription(statement.fields))
            replies += self._rows(statement.rows)
            if failing:
                replies.append(self._error())
                break
            replies.append(self._done(statement, len(statement.rows)))
        if not statements:
            replies.append(backend.EmptyQueryResponse())
        return [*replies, *self._ready()]

    def refuses(self, statement: Statement) -> bool:
        """In a failed block nothing runs but what ends or rewinds it."""
        return self.status == "E" and not (statement.status or statement.text.startswith("ROLLBACK"))

    @staticmethod
    def _rows(rows: Sequence[tuple[bytes | None, ...]]) -> list[Message]:
        return [backend.DataRow(list(row)) for row in rows]

    def _done(self, statement: Statement, count: int) -> Message:
        tag = statement.tag.format(count)
        if statement.status:
            if self.status == "E" and statement.text == "COMMIT":
                tag = "ROLLBACK"
            self.status = statement.status
        elif self.status == "E":
            self.status = "T"  # ROLLBACK TO
        if statement.parameter is not None:
            self.reported.append(statement.parameter)
        return backend.CommandComplete(tag.encode())

    def _parse(
        self, message: frontend.Parse, known: Callable[[bytes], Sequence[Statement]], *, fails: bool
    ) -> list[Message]:
        if not message.name:
            self.statements.pop(b"", None)
        (statement,) = known(message.query)
        if fails or self.refuses(statement) or message.name in self.statements:
            return [self._error()]
        self.statements[message.name] = statement
        return [backend.ParseComplete()]

    def _bind(self, message: frontend.Bind, *, fails: bool) -> list[Message]:
        statement = self.statements.get(message.statement)
        taken = bool(message.portal) and message.portal in self.portals
        if fails or statement is None or taken or self.refuses(statement):
            return [self._error()]
        self.portals[message.portal] = ModelPortal(statement, list(statement.rows))
        return [backend.BindComplete()]

    def _describe(self, message: frontend.Describe, *, fails: bool) -> list[Message]:
        replies: list[Message] = []
        if message.kind == codes.PREPARED_STATEMENT:
            statement = self.statements.get(message.name)
            replies.append(backend.ParameterDescription((23,)))
        else:
            portal = self.portals.get(message.name)
            statement = None if portal is None else portal.statement
        if fails or statement is None:
            return [self._error()]
        described = backend.RowDescription(statement.fields) if statement.fields else backend.NoData()
        return [*replies, described]

    def _execute(self, message: frontend.Execute, *, fails: bool) -> list[Message]:
        portal = self.portals.get(message.portal)
        if portal is None or self.refuses(portal.statement) or (portal.ended and not portal.statement.fields):
            return [self._error()]
        limit = message.maximum_rows or len(portal.rows) + 1
        sent, portal.rows = portal.rows[:limit], portal.rows[limit:]
        replies = self._rows(sent)
        if fails:
            return [*replies, self._error()]
        if len(sent) == limit:
            return [*replies, backend.PortalSuspended()]
        portal.ended = True
        return [*replies, self._done(portal.statement, len(sent))]
