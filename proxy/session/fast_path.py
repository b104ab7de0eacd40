"""The short way for most of the traffic: one statement that only reads, asked in one chunk and answered in one.

A *turn* begins when nothing is outstanding and the client's chunk is exactly one Query, or Bind or Parse and Bind up to
Sync on unnamed ones, of a statement that is known to change nothing. Nothing is noted of it then but the chunk. If the
server's next chunk is plainly the whole of its answer, a successful one that leaves the transaction status as it was,
then the turn is over and whatever rows concern somebody have been read. If it is anything else, nothing has happened
yet: the chunk goes to the pipeline as if there were no short way, and so does the answer.

So this file decides nothing by itself. Each step does what handlers of ``session_requests`` and ``session_replies``
would have done in sum, and where that takes a second thought it declines.
"""

from __future__ import annotations

from struct import error
from typing import TYPE_CHECKING, Final

from cache.capture.arguments import Arguments
from cache.capture.plan_views import MAX_FRAME, NO_SHAPE
from cache.capture.rows import UNREADABLE, fixed_parts
from cache.sql.plans import EMPTY
from protocol import backend, codes, frontend
from protocol.message import HEADER
from proxy.session.prepared import Portal, Prepared
from proxy.session.prepared_objects import NO_ARGUMENTS

if TYPE_CHECKING:
    from cache.capture.database import Database
    from cache.capture.outcomes import Outcomes
    from cache.capture.plan_views import Parsed, Shape, View
    from cache.capture.rows import Row
    from cache.sql.plans import Literals
    from proxy.session.prepared_objects import Names

_header = HEADER.unpack_from

_TAILS: Final = {
    b"".join([*described, bytes(frontend.Execute(b"", limit)), frontend.SYNC_FRAME]): bool(described)
    for described in ((), (bytes(frontend.Describe(codes.PORTAL, b"")),))
    for limit in (0, 1, 2)
}
"""What may follow Bind in a turn, and whether it asks for a RowDescription."""
MAX_ANSWER = 65_536
"""Bytes; nothing is gained where an answer is longer."""
_READY: Final = {status: bytes(backend.ReadyForQuery(status)) for status in (codes.IDLE, codes.IN_TRANSACTION)}
_READY_SIZE: Final = len(backend.READY_IDLE_FRAME)
_LENGTH_SIZE: Final = 4
_SUSPENDED_SIZE: Final = len(backend.PORTAL_SUSPENDED_FRAME)
_BOUND: Final = backend.BIND_COMPLETE_FRAME
_PARSED: Final = backend.PARSE_COMPLETE_FRAME + backend.BIND_COMPLETE_FRAME
_SELECT: Final = b"SELECT "
_SPENT: Final = Portal(EMPTY, 0, 0)
"""A portal that has run to its end: executed again it has no rows."""


class Turns:
    """The one turn a session can be in. ``begins`` and ``ends`` have no effect where they return False."""

    __slots__ = (
        "_acknowledged",
        "_bind",
        "_database",
        "_described",
        "_literals",
        "_names",
        "_outcomes",
        "_parsed",
        "_prepared",
        "_types",
        "_view",
        "said",
    )

    def __init__(self, database: Database, names: Names, outcomes: Outcomes) -> None:
        self.said = b""
        """The client's chunk."""
        self._database = database
        self._names = names
        self._outcomes = outcomes
        self._view: View
        self._bind = -1
        """Where in ``said`` the Bind message begins; -1 for a Query."""
        self._prepared: Prepared | None = None
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

    def begins(self, data: bytes) -> bool:
        """The client said ``data`` while nothing was outstanding: whether that is a turn."""
        try:
            kind = data[0]
            if kind == frontend.QUERY:
                return self._queries(data)
            if kind == frontend.BIND:
                return self._binds(data, _header(data)[1] + 1)
            return kind == frontend.PARSE and self._parses(data, _header(data)[1] + 1)
        except (error, IndexError, ValueError):  # cut short
            return False

    def _queries(self, data: bytes) -> bool:
        known = self._names.known
        found = known.queries.get(data) if len(data) <= MAX_FRAME else None
        if found is None:
            found = self._queried_first(data)
            if found is None:
                return False
        self._view, self._literals = found
        self.said, self._bind = data, -1
        self._acknowledged, self._described = b"", True
        return True

    def _queried_first(self, data: bytes) -> tuple[View, Literals] | None:
        if not self._database.learned or _header(data)[1] + 1 != len(data):
            return None
        plans, literals = self._names.plans(data[HEADER.size : -1])
        known = self._names.known
        if len(plans) != 1 or not (view := known.view(plans[0])).only_reads:
            return None
        known.remember_query(data, view, literals)
        return view, literals

    def _binds(self, data: bytes, end: int) -> bool:
        """Bind of a named statement to the unnamed portal."""
        described = _TAILS.get(data[end:])
        if described is None or data[5] or not self._database.learned:
            return False
        prepared = self._names.statements.get(data[6 : data.index(0, 6, end)])
        if prepared is None:
            return False
        if prepared.known is not self._names.known:
            self._names.plan_of(prepared)
        view = prepared.view
        if view is None or not view.only_reads:
            return False
        self._view, self._literals, self._types = view, prepared.literals, prepared.types
        self.said, self._bind, self._prepared, self._parsed = data, 0, prepared, None
        self._acknowledged, self._described = _BOUND, described
        return True

    def _parses(self, data: bytes, end: int) -> bool:
        """Parse of the unnamed statement, and its Bind to the unnamed portal."""
        if data[5] or data[end] != frontend.BIND or data[end + 5 : end + 7] != b"\0\0":
            return False
        described = _TAILS.get(data[end + _header(data, end)[1] + 1 :])
        if described is None:
            return False
        message = data[:end]
        found = self._names.known.parsed.get(message) or self._parsed_first(message)
        if found is None:
            return False
        self._view, self._literals, self._parsed, self._types = found
        self.said, self._bind, self._prepared = data, end, None
        self._acknowledged, self._described = _PARSED, described
        return True

    def _parsed_first(self, message: bytes) -> Parsed | None:
        if not self._database.learned:
            return None
        parse = frontend.Parse.decode(message[HEADER.size :])
        plans, literals = self._names.plans(parse.query)
        known = self._names.known
        if len(plans) != 1 or not (view := known.view(plans[0])).only_reads:
            return None
        found = view, literals, parse.query, parse.parameter_types
        known.remember_parsed(message, found)
        return found

    # -- the server's chunk

    def ends(self, data: bytes, status: int, seq: int, sent_ns: int) -> bool:
        """The server said ``data``, at first: whether it is all of the turn's answer. ``status`` is the transaction's
        so far, the other two are those of the client's chunk."""
        ready = _READY.get(status)
        if ready is None or not data.endswith(ready) or not data.startswith(self._acknowledged):
            return False
        if len(data) > MAX_ANSWER:
            return False
        if status != codes.IDLE and self._outcomes.buffer.start is None:
            return False  # a transaction whose beginning was not seen
        try:
            if not (self._passes(data) if self._view.quiet else self._reads(data, status, seq, sent_ns)):
                return False
        except error:  # a frame ends behind the chunk
            return False
        if self._bind < 0:
            if self._names.statements:
                self._names.statements.pop(b"", None)
            return True
        if self._parsed is not None:
            self._names.statements[b""] = Prepared(self._parsed, self._types)
        if status != codes.IDLE:
            self._names.portals[b""] = _SPENT
        return True

    def _passes(self, data: bytes) -> bool:
        """Nobody wants the rows."""
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

    def _reads(self, data: bytes, status: int, seq: int, sent_ns: int) -> bool:
        """Rows may fill."""
        pos = len(self._acknowledged)
        kind, length = _header(data, pos)
        description = None
        if self._described:
            if kind != backend.ROW_DESCRIPTION:
                return False
            description = data[pos + HEADER.size : pos + length + 1]
            pos += length + 1
            kind, length = _header(data, pos)
        shape = self._shape(description)
        tap = shape.taps[0] if shape.taps and self._outcomes.may_fill else None
        fixed = fixed_parts(tap, self._arguments() if shape.arguments else NO_ARGUMENTS) if tap is not None else ()
        if fixed is None or len(shape.taps) > 1:
            return False
        rows: list[Row] = []
        unreadable = 0
        last = len(data) - _READY_SIZE
        while kind == backend.DATA_ROW and length > _LENGTH_SIZE:
            after = pos + length + 1
            if after > last:
                return False
            if tap is not None and len(rows) < tap.limit:
                row = tap.read(backend.first_values(data, pos + HEADER.size, after, tap.columns), fixed)
                if row is UNREADABLE:
                    unreadable += 1
                elif row is not None:
                    rows.append(row)
            pos = after
            kind, length = _header(data, pos)
        tag = b""
        if kind == backend.COMMAND_COMPLETE:
            tag = data[pos + HEADER.size : last - 1]
            if pos + length + 1 != last or not tag.startswith(_SELECT):
                return False
        elif kind != backend.PORTAL_SUSPENDED or pos + _SUSPENDED_SIZE != last or status != codes.IDLE:
            return False
        self._outcomes.counted(self._view.counted, shape.refused, tag)
        if tap is not None:
            self._outcomes.fill(tap.bound.rule, rows, unreadable, seq, sent_ns)
        return True

    def _shape(self, description: bytes | None) -> Shape:
        """What to read from the rows."""
        if description is not None:
            return self._view.shape(description)
        if self._prepared is None or (description := self._names.description(self._prepared)) is None:
            return NO_SHAPE
        return self._view.shape(description, frontend.bind_result_formats(self.said, *self._bind_body()))

    def _arguments(self) -> Arguments:
        """The statement's constants and parameters."""
        if self._bind < 0:
            return Arguments(self._literals, settings=self._names.known.settings)
        start, end = self._bind_body()
        return self._names.arguments(self._literals, self._types, self.said[start:end], self._names.known.settings)

    def _bind_body(self) -> tuple[int, int]:
        start = self._bind
        return start + HEADER.size, start + 1 + _header(self.said, start)[1]
