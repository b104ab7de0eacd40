"""What a session's finished statements make true, and when: plans, rows and tags in, released changes out.

One ``Outcomes`` belongs to one session. It knows transactions, two-phase commit and DDL, but no frames: ``proxy`` pairs
replies with requests and calls ``finished``, ``failed``, ``ready`` and ``lost``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cache.capture import plan_views
from cache.capture.transaction import TransactionBuffer, without_values
from cache.capture.write_changes import changes_of_write
from cache.changes import Change, Kind
from cache.sql.plans import Command, Plan
from protocol import codes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.capture.arguments import Arguments
    from cache.capture.database import Database
    from cache.capture.plan_views import Reasons
    from cache.capture.rows import KeyedValue, RowCollector
    from cache.capture.session_settings import Settings
    from cache.counts import Counts
    from cache.rules import TableRule


class Sink(Protocol):
    """Where released changes go: the backlog."""

    def put(self, changes: Sequence[Change]) -> None: ...


class Execution:
    """One statement while it runs."""

    __slots__ = ("already_counted", "another", "arguments", "collectors", "dirty", "plan", "refused", "sent_ns", "seq")

    def __init__(self, plan: Plan, arguments: Arguments, seq: int, sent_ns: int) -> None:
        self.plan = plan
        self.arguments = arguments
        self.seq = seq
        """With ``sent_ns``: the statement was forwarded, or its snapshot taken, no earlier."""
        self.sent_ns = sent_ns
        self.dirty = False
        """Its rows may be what its own transaction had written when its snapshot was taken, whatever the transaction is
        now."""
        self.another = False
        """Its name may stand for another statement than ``plan``: its rows do not fill."""
        self.already_counted = False
        """The statement was counted when an earlier part of the same portal's rows came."""
        self.collectors: tuple[RowCollector, ...] = ()
        self.refused: Reasons = ()
        """Labels of rules its rows cannot fill, and why."""


_WRITING_TAGS = frozenset(
    {b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"COPY", b"TRUNCATE", b"ALTER", b"DROP", b"DO", b"CALL"}
)
_COUNT_DIGITS = 20
"""Digits of the largest row count, which has 64 bits."""


def row_count(tag: bytes) -> int | None:
    """The number of rows a command tag ends with (manual, CommandComplete), None if it has none."""
    last = tag.rpartition(b" ")[2]
    return int(last) if last.isdigit() and len(last) <= _COUNT_DIGITS else None


class Outcomes:
    """Judges what became of one session's statements."""

    __slots__ = ("_backlog", "_counts", "_database", "_ddl_open", "_on_end", "_settings", "buffer")

    def __init__(self, database: Database, backlog: Sink, counts: Counts, settings: Settings) -> None:
        self.buffer = TransactionBuffer()
        self._database = database
        self._backlog = backlog
        self._counts = counts
        self._settings = settings
        self._ddl_open = False
        self._on_end: dict[Command, Callable[[Execution, bytes], None]] = {
            Command.COMMIT: self._commit,
            Command.ROLLBACK: self._rollback,
            Command.SAVEPOINT: self._savepoint,
            Command.RELEASE: self._release,
            Command.ROLLBACK_TO: self._rollback_to,
            Command.PREPARE_TRANSACTION: self._prepare_transaction,
            Command.COMMIT_PREPARED: self._commit_prepared,
            Command.ROLLBACK_PREPARED: self._rollback_prepared,
            Command.DISCARD_ALL: self._discard_all,
            Command.DISCARD_TEMP: self._discard_temp,
        }

    # -- statements

    def ddl_forwarded(self) -> None:
        """A statement that may change the catalog is on its way to the server."""
        if not self._ddl_open:
            self._ddl_open = True
            self._database.ddl_began()

    def finished(self, execution: Execution, tag: bytes) -> None:
        """CommandComplete came for ``execution``."""
        plan = execution.plan
        self.buffer.touch(execution.seq, execution.sent_ns)
        if not self._database.learned:
            self._write_unlearned(execution, tag)
        elif plan.trivial:
            return
        if not execution.already_counted:
            self.count(plan_views.reasons(plan), execution.refused, tag)
        self._fill(execution)
        self._write(execution, row_count(tag))
        self._effects(execution)
        handler = self._on_end.get(plan.command)
        if handler is not None:
            handler(execution, tag)

    def suspended(self, execution: Execution) -> None:
        """PortalSuspended: more rows may be fetched, now or never; what the statement writes has been written."""
        self.buffer.touch(execution.seq, execution.sent_ns)
        if execution.plan.trivial:
            return
        if not execution.already_counted:
            self.count(plan_views.reasons(execution.plan), execution.refused, b"")
        self._fill(execution)
        if changes := self._possible_writes(execution):
            self.buffer.add(changes)
        self._effects(execution)

    def count(self, reasons: Reasons, refused: Reasons, tag: bytes) -> None:
        """Count a finished statement under its reason, and the rows that could not fill under theirs."""
        statements = self._counts.statements
        for key in reasons:
            statements[key] = statements.get(key, 0) + 1
        for label, reason in refused:
            self._counts.row_unfilled(label, reason, row_count(tag) or 0)

    @property
    def may_fill(self) -> bool:
        """What a statement reads now is committed, and the catalog is certain of the tables."""
        return not self.buffer.dirty and self._database.certain and not self._settings.hot_standby

    def fill(self, rule: TableRule, rows: Sequence[KeyedValue], unreadable: int, seq: int, sent_ns: int) -> None:
        """Put the Fills of rows that a statement of this date and instant has read while ``may_fill`` was true.
        ``unreadable`` more rows could not be read."""
        start = self.buffer.start
        if start is not None:  # the statement's snapshot may be as old as its transaction
            seq, sent_ns = min(seq, start[0]), min(sent_ns, start[1])
        if unreadable:
            self._counts.row_unfilled(rule.label, "value not certain", unreadable)
        # A row whose value columns are NULL has no value in Redis.
        fills = [Change(Kind.FILL, rule, key, value, seq, sent_ns) for key, value in rows if value is not None]
        if fills:
            self._backlog.put(fills)

    def _fill(self, execution: Execution) -> None:
        if not execution.collectors or execution.dirty or not self.may_fill:
            return
        for collector in execution.collectors:
            if collector.row_plan.kind is Kind.FILL:
                rule = collector.row_plan.bound.rule
                self.fill(rule, collector.take(), collector.unreadable, execution.seq, execution.sent_ns)
                collector.unreadable = 0

    def fill_early(self, execution: Execution) -> None:
        """The values read so far are too many to keep until the statement finishes. They are committed already, so what
        becomes of the statement does not matter to them."""
        self._fill(execution)
        for collector in execution.collectors:
            if collector.row_plan.kind is Kind.FILL:
                collector.take()  # what could not fill is not kept either

    def _write(self, execution: Execution, count: int | None) -> None:
        plan = execution.plan
        if not plan.writes:
            return
        stamp = (execution.seq, execution.sent_ns)
        certain = self._database.certain
        changes: list[Change] = []
        for write in plan.writes:
            returned = next((found for found in execution.collectors if found.row_plan.write is write), None)
            changes += changes_of_write(write, execution.arguments, count, returned, stamp, certain=certain)
        self.buffer.add(changes)

    def _write_unlearned(self, execution: Execution, tag: bytes) -> None:
        """Without a catalog it is not known which table a name means: a statement that is not certainly a read may have
        written any of them."""
        if execution.plan.modifies or execution.plan.opaque or tag.split(b" ", 1)[0] in _WRITING_TAGS:
            self.buffer.add(self.flush_all((execution.seq, execution.sent_ns)))

    def possible_changes(self, outstanding: Sequence[Execution]) -> list[Change]:
        """What may have become true once ``outstanding`` are answered. Not to be put: only the keys are of use."""
        changes = [*self.buffer.pending, *self._unforeseen()]
        for execution in outstanding:
            changes += self._possible_writes(execution)
        return changes

    def _possible_writes(self, execution: Execution) -> list[Change]:
        """Evicts and Flushes of everything the statement may write, or may make true by committing it."""
        plan = execution.plan
        stamp = (execution.seq, execution.sent_ns)
        if not self._database.learned and (plan.modifies or plan.opaque):
            return self.flush_all(stamp)
        changes: list[Change] = []
        if plan.command is Command.COMMIT_PREPARED:
            prepared = None if plan.name is None else self._database.prepared.get(plan.name)
            changes += self.flush_all(stamp) if prepared is None else [replace(change) for change in prepared]
        for write in execution.plan.writes:
            changes += changes_of_write(write, execution.arguments, None, None, stamp, certain=False)
        return without_values(changes)

    def _effects(self, execution: Execution) -> None:
        plan = execution.plan
        if (plan.modifies or plan.opaque) and (
            flushes := self._database.wrong_since((execution.seq, execution.sent_ns))
        ):
            self.buffer.add(flushes)
        if plan.modifies:
            self.buffer.dirty = True
        if plan.opaque:
            self.buffer.dirty = True
            self._settings.run_unseen_code()
            if plan.command is Command.UTILITY:
                self.buffer.mark_uncertain()
        if plan.ddl:
            self.ddl_forwarded()
            self._settings.change_names()
        if plan.shadows:
            self._settings.shadow(plan.shadows)
        if plan.settings:
            self._settings.apply(plan.settings)

    # -- transactions

    def _unforeseen(self) -> list[Change]:
        """Flushes of the rules whose rows this transaction may have changed though no plan said so: since it began,
        the catalog has been found wrong about them."""
        buffer = self.buffer
        return self._database.wrong_since(buffer.start) if buffer.dirty and buffer.start is not None else []

    def _add_unforeseen(self) -> None:
        if flushes := self._unforeseen():
            self.buffer.add(flushes)

    def failed(self, *, unseen_code: bool) -> None:
        """ErrorResponse came. ``unseen_code``: for a statement that runs code which cannot be seen. That may have ended
        transactions, and made prepared statements, which no rollback takes back."""
        self.buffer.fail()
        if unseen_code:
            self._settings.run_unseen_code()

    def function_called(self) -> None:
        """FunctionCallResponse came: which function it was is not known."""
        self.buffer.mark_uncertain()
        self._settings.run_unseen_code()

    def ready(self, status: int, *, at_rest: bool) -> None:
        """ReadyForQuery came; ``at_rest`` when the server owes nothing more."""
        if status == codes.IDLE:
            self._settings.transaction_ended()
        self._settings.settle()
        if status == codes.IDLE:
            self._add_unforeseen()
        released = self.buffer.ready(status)
        if released:
            self._backlog.put(released)
        if self._ddl_open and status == codes.IDLE and at_rest:
            self._end_ddl()

    def _end_ddl(self) -> None:
        self._ddl_open = False
        self._database.ddl_ended()

    def _commit(self, execution: Execution, tag: bytes) -> None:
        if tag == b"ROLLBACK":
            self._end(self.buffer.rollback(), execution)
        else:
            self._add_unforeseen()
            self._end(self.buffer.commit(), execution)

    def _rollback(self, execution: Execution, tag: bytes) -> None:
        self._end(self.buffer.rollback(), execution)

    def _end(self, released: list[Change], execution: Execution) -> None:
        self._settings.transaction_ended()
        if released:
            self._backlog.put(released)
        if execution.plan.chain:
            self.buffer.touch(execution.seq, execution.sent_ns)

    def _savepoint(self, execution: Execution, tag: bytes) -> None:
        self.buffer.savepoint(execution.plan.name or "")

    def _release(self, execution: Execution, tag: bytes) -> None:
        self.buffer.release(execution.plan.name or "")

    def _rollback_to(self, execution: Execution, tag: bytes) -> None:
        self.buffer.rollback_to(execution.plan.name or "")
        self._settings.undone()

    def _discard_all(self, execution: Execution, tag: bytes) -> None:
        self._settings.discard_all()

    def _discard_temp(self, execution: Execution, tag: bytes) -> None:
        # It may be rolled back, so the names of temporary relations stay uncertain.
        self._settings.change_names()

    # -- two-phase commit

    def _prepare_transaction(self, execution: Execution, tag: bytes) -> None:
        if tag == b"ROLLBACK":  # the block had failed
            self._end(self.buffer.rollback(), execution)
            return
        self._settings.transaction_ended()
        self._add_unforeseen()
        changes = self.buffer.take()
        gid = execution.plan.name
        if gid is None or not self._database.prepare(gid, changes):
            self._backlog.put(without_values(changes))

    def _commit_prepared(self, execution: Execution, tag: bytes) -> None:
        gid = execution.plan.name
        changes = None if gid is None else self._database.prepared.pop(gid, None)
        if changes is None:  # not prepared through this worker: what it wrote is not known
            changes = self.flush_all((execution.seq, execution.sent_ns))
        self._backlog.put(changes)

    def _rollback_prepared(self, execution: Execution, tag: bytes) -> None:
        if execution.plan.name is not None:
            self._database.prepared.pop(execution.plan.name, None)

    # -- ends

    def flush_all(self, stamp: tuple[int, int]) -> list[Change]:
        """A Flush of every rule of the database."""
        return [Change(Kind.FLUSH, rule, b"", None, *stamp) for rule in self._database.rules]

    def blinded(self, outstanding: Sequence[Execution], stamp: tuple[int, int]) -> None:
        """The session is not followed any more: whatever it wrote or will write is uncertain. Whatever fails here, the
        Flushes are put."""
        try:
            self.lost(outstanding, may_commit_later=False)
        finally:
            self._backlog.put(self.flush_all(stamp))

    def lost(self, outstanding: Sequence[Execution], *, may_commit_later: bool) -> None:
        """The session ended with ``outstanding`` unanswered statements.

        Args:
            may_commit_later: the server may still run and commit them, so nothing that is read meanwhile may fill.
        """
        try:
            self._add_unforeseen()
            changes = self.buffer.lost(unanswered=bool(outstanding))
            for execution in outstanding:
                changes += self._possible_writes(execution)
            for change in changes:
                change.may_commit_later = may_commit_later
            if changes:
                self._backlog.put(changes)
        finally:
            if self._ddl_open:
                self._end_ddl()
