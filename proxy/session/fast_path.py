"""The fast path for most of the traffic: one statement that only reads, asked for in one chunk and answered in one.

It is taken when nothing is outstanding and the client's chunk is exactly one Query, or Bind or Parse and Bind up to
Sync for the unnamed portal, of a statement that is known to change nothing. The pipeline then has nothing but the
chunk. If the server's next chunk is the whole of a plain answer, a successful one that leaves the transaction status as
it was, the rows that concern a rule are read from it and the statement is over. If it is anything else, the client's
chunk is taken apart into requests as if there were no fast path, and so is the answer.

So nothing is decided here that ``requests`` and ``replies`` would decide differently: each step does what their
handlers would have done in sum, and where that is not simple it declines. To decline has no effect: until an answer is
taken nothing is changed but what is remembered of texts and RowDescriptions, which would be the same if made anew.
"""

from __future__ import annotations

from struct import error
from typing import TYPE_CHECKING, Final

from cache.capture.arguments import Arguments
from cache.capture.plan_views import MAX_MESSAGE, NOTHING_TO_READ
from cache.capture.rows import UNREADABLE, fixed_parts
from cache.sql.plans import EMPTY
from protocol import backend, codes, frontend
from protocol.errors import ProtocolError
from protocol.message import HEADER
from proxy.session.prepared import Portal, PreparedStatement
from proxy.session.prepared_objects import MAY_BE_ANOTHER, NO_ARGUMENTS

if TYPE_CHECKING:
    from cache.capture.database import Database
    from cache.capture.outcomes import Outcomes
    from cache.capture.plan_views import ParseMeaning, PlanView, QueryMeaning, ResultShape
    from cache.capture.rows import KeyedValue
    from cache.sql.plans import Literals
    from proxy.session.pipeline import Pipeline
    from proxy.session.prepared_objects import PreparedObjects

_header = HEADER.unpack_from

_AFTER_BIND: Final = {
    b"".join([*described, bytes(frontend.Execute(b"", limit)), frontend.SYNC_FRAME]): bool(described)
    for described in ((), (bytes(frontend.Describe(codes.PORTAL, b"")),))
    for limit in (0, 1, 2)
}
"""What may follow Bind, and whether it asks for a RowDescription."""
MAX_ANSWER = 65_536
"""Bytes; where an answer is longer, the fast path gains nothing."""
_READY: Final = {
    codes.IDLE: backend.READY_IDLE_FRAME,
    codes.IN_TRANSACTION: backend.READY_IN_TRANSACTION_FRAME,
}
"""How a plain answer ends, by the transaction status."""
_READY_SIZE: Final = len(backend.READY_IDLE_FRAME)
_LENGTH_SIZE: Final = 4
_SUSPENDED_SIZE: Final = len(backend.PORTAL_SUSPENDED_FRAME)
_BOUND: Final = backend.BIND_COMPLETE_FRAME
_PARSED: Final = backend.PARSE_COMPLETE_FRAME + backend.BIND_COMPLETE_FRAME
_SELECT: Final = b"SELECT "
_SPENT: Final = Portal(EMPTY, 0, 0)
"""A portal that has run to its end: executed again it has no rows."""


class FastPath:
    """Follows one read at a time. ``takes`` and ``finishes`` have no effect where they return False."""

    __slots__ = (
        "_acknowledged",
        "_bind",
        "_database",
        "_described",
        "_literals",
        "_objects",
        "_outcomes",
        "_parsed",
        "_pipeline",
        "_prepared",
        "_types",
        "_view",
    )

    def __init__(self, database: Database, pipeline: Pipeline, objects: PreparedObjects, outcomes: Outcomes) -> None:
        self._database = database
        self._pipeline = pipeline
        self._objects = objects
        self._outcomes = outcomes
        # Of the statement that is followed:
        self._view: PlanView
        self._bind = -1
        """Where in the client's chunk the Bind message begins; -1 for a Query."""
        self._prepared: PreparedStatement | None = None
        """The named statement that is bound."""
        self._parsed: bytes | None = None
        """The text of the unnamed statement that is parsed and bound."""
        self._literals: Literals = ()
        self._types: tuple[int, ...] = ()
        self._acknowledged = b""
        """How the answer begins."""
        self._described = True
        """A RowDescription is due."""

    # -- the client's chunk

    def takes(self, data: bytes) -> bool:
        """The client sent ``data`` while nothing was outstanding. If the fast path can follow it, it is in the pipeline
        now."""
        try:
            kind = data[0]
            if kind == frontend.QUERY:
                return self._takes_query(data)
            if kind == frontend.BIND:
                return self._takes_bind(data, _header(data)[1] + 1)
            return kind == frontend.PARSE and self._takes_parse(data, _header(data)[1] + 1)
        except (error, IndexError, ValueError, ProtocolError):  # a message is cut short, or makes no sense
            return False

    def _takes_query(self, data: bytes) -> bool:
        meaning = self._objects.views.queries.get(data) if len(data) <= MAX_MESSAGE else None
        if meaning is None:
            meaning = self._read_query(data)
            if meaning is None:
                return False
        self._view, self._literals = meaning
        self._pipeline.chunk, self._bind = data, -1
        self._acknowledged, self._described = b"", True
        return True

    def _read_query(self, data: bytes) -> QueryMeaning | None:
        if not self._database.learned or _header(data)[1] + 1 != len(data):
            return None
        plans, literals = self._objects.plans(data[HEADER.size : -1])
        views = self._objects.views
        if len(plans) != 1 or not (view := views.of(plans[0])).only_reads:
            return None
        views.remember_query(data, (view, literals))
        return view, literals

    def _takes_bind(self, data: bytes, end: int) -> bool:
        """Bind of a named statement to the unnamed portal."""
        described = _AFTER_BIND.get(data[end:])
        if described is None or data[5] or not self._database.learned:
            return False
        prepared = self._objects.statements.get(data[6 : data.index(0, 6, end)])
        if prepared is None:
            return False
        view = prepared.view
        if view is None or prepared.views is not self._objects.views:
            view = self._objects.view_of(prepared)
        if not view.only_reads:
            return False
        self._view, self._literals, self._types = view, prepared.literals, prepared.types
        self._pipeline.chunk, self._bind = data, 0
        self._prepared, self._parsed = prepared, None
        self._acknowledged, self._described = _BOUND, described
        return True

    def _takes_parse(self, data: bytes, end: int) -> bool:
        """Parse of the unnamed statement, and its Bind to the unnamed portal."""
        if data[5] or data[end] != frontend.BIND or data[end + 5 : end + 7] != b"\0\0":
            return False
        described = _AFTER_BIND.get(data[end + _header(data, end)[1] + 1 :])
        if described is None:
            return False
        message = data[:end]
        meaning = self._objects.views.parses.get(message) or self._read_parse(message)
        if meaning is None:
            return False
        self._view, self._literals, self._parsed, self._types = meaning
        self._pipeline.chunk, self._bind, self._prepared = data, end, None
        self._acknowledged, self._described = _PARSED, described
        return True

    def _read_parse(self, message: bytes) -> ParseMeaning | None:
        if not self._database.learned:
            return None
        parse = frontend.Parse.decode(message[HEADER.size :])
        plans, literals = self._objects.plans(parse.query)
        views = self._objects.views
        if len(plans) != 1 or not (view := views.of(plans[0])).only_reads:
            return None
        meaning = view, literals, parse.query, parse.parameter_types
        views.remember_parse(message, meaning)
        return meaning

    # -- the server's chunk

    def finishes(self, chunk: bytes, data: bytes, status: int, seq: int, sent_ns: int) -> bool:
        """The server's first answer to ``chunk`` is ``data``. If it is a plain one, the statement is over now.

        Args:
            status: the transaction's so far.
            seq, sent_ns: the date and instant at which ``chunk`` was forwarded.
        """
        ready = _READY.get(status)
        if ready is None or not data.endswith(ready) or len(data) > MAX_ANSWER:
            return False
        if self._acknowledged and not data.startswith(self._acknowledged):
            return False
        if status != codes.IDLE and self._outcomes.buffer.start is None:
            return False  # a transaction whose beginning was not seen
        try:
            if not (self._skips(data) if self._view.trivial else self._reads(chunk, data, status, seq, sent_ns)):
                return False
        except (error, ProtocolError):  # a frame ends behind the chunk, or makes no sense
            return False
        self._pipeline.chunk = None
        if self._bind < 0:
            if self._objects.statements:
                self._objects.statements.pop(b"", None)
            return True
        if self._parsed is not None:
            reading = self._objects.settings.reading
            self._objects.prepared(b"", PreparedStatement(self._parsed, self._types, reading))
        if status != codes.IDLE:
            self._objects.portals[b""] = _SPENT
        return True

    def _skips(self, data: bytes) -> bool:
        """A plain answer with rows that concern no rule."""
        pos = len(self._acknowledged)
        kind, length = _header(data, pos)
        if self._described:
            if kind != backend.ROW_DESCRIPTION:
                return False
            pos += length + 1
            kind, length = _header(data, pos)
        while kind == backend.DATA_ROW and length > _LENGTH_SIZE:
            pos += length + 1
            kind, length = _header(data, pos)
        return (
            kind == backend.COMMAND_COMPLETE
            and pos + length + 1 + _READY_SIZE == len(data)
            and data.startswith(_SELECT, pos + HEADER.size)
        )

    def _reads(self, chunk: bytes, data: bytes, status: int, seq: int, sent_ns: int) -> bool:
        """A plain answer with rows that may fill; they do."""
        pos = len(self._acknowledged)
        kind, length = _header(data, pos)
        description = None
        if self._described:
            if kind != backend.ROW_DESCRIPTION:
                return False
            description = data[pos + HEADER.size : pos + length + 1]
            pos += length + 1
            kind, length = _header(data, pos)
        shape = self._shape(chunk, description)
        row_plans, refused, needs_arguments, unknown_tables = shape
        if len(row_plans) > 1:
            return False
        row_plan = row_plans[0] if row_plans and self._outcomes.may_fill else None
        arguments = self._arguments(chunk) if needs_arguments else NO_ARGUMENTS
        fixed = fixed_parts(row_plan, arguments) if row_plan is not None else ()
        if fixed is None:
            return False
        rows: list[KeyedValue] = []
        unreadable = 0
        # A row that is longer than the chunk may be read too: behind it there is no header, and this declines.
        while kind == backend.DATA_ROW and length > _LENGTH_SIZE:
            start = pos + HEADER.size
            pos += length + 1
            if row_plan is not None and len(rows) < row_plan.limit:
                values = backend.first_values(data, start, pos, row_plan.columns)
                if len(values) < row_plan.columns:
                    return False
                row = row_plan.read(values, fixed)
                if row is UNREADABLE:
                    unreadable += 1
                elif row is not None:
                    rows.append(row)
            kind, length = _header(data, pos)
        tag = _tag(data, pos, kind, length, status)
        if tag is None:
            return False
        # From here on nothing declines any more.
        self._outcomes.count(self._view.reasons, refused, tag)
        if row_plan is not None:
            self._outcomes.fill(row_plan.bound.rule, rows, unreadable, seq, sent_ns)
        if unknown_tables:
            self._database.note_unknown_tables(unknown_tables)
        return True

    def _shape(self, chunk: bytes, description: bytes | None) -> ResultShape:
        """What to read from the rows; ``description`` is None where none was asked for."""
        objects, prepared = self._objects, self._prepared if self._bind >= 0 else None
        if prepared is not None and objects.may_be_another(prepared):
            return self._view.refused(MAY_BE_ANOTHER)
        if description is not None:
            return self._view.shape(description)
        if prepared is None:
            return NOTHING_TO_READ
        return objects.shape(
            self._view,
            prepared,
            objects.meaning,
            lambda: frontend.bind_result_formats(chunk, *self._bind_body(chunk)),
        )

    def _arguments(self, chunk: bytes) -> Arguments:
        """The statement's constants and parameters."""
        if self._bind < 0:
            return Arguments(self._literals, settings=self._objects.views.settings)
        start, end = self._bind_body(chunk)
        return self._objects.arguments(self._literals, self._types, chunk[start:end], self._objects.views.settings)

    def _bind_body(self, chunk: bytes) -> tuple[int, int]:
        start = self._bind
        return start + HEADER.size, start + 1 + _header(chunk, start)[1]


def _tag(data: bytes, pos: int, kind: int, length: int, status: int) -> bytes | None:
    """The command tag of a read, if that message is at ``pos`` and only ReadyForQuery is behind it; empty if
    PortalSuspended is there instead; None if it is anything else."""
    last = len(data) - _READY_SIZE
    if kind == backend.COMMAND_COMPLETE:
        tag = data[pos + HEADER.size : last - 1]
        return tag if pos + length + 1 == last and tag.startswith(_SELECT) else None
    suspended = kind == backend.PORTAL_SUSPENDED and pos + _SUSPENDED_SIZE == last and status == codes.IDLE
    return b"" if suspended else None
