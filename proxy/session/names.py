"""What the names of one session stand for: prepared statements and portals, and what executing one of them means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.capture.arguments import Arguments
from cache.capture.outcomes import Execution
from cache.capture.rows import Reader
from cache.sql.plans import EMPTY, Command, Plan
from protocol import frontend
from proxy.session.prepared import Portal, Prepared

if TYPE_CHECKING:
    from cache.capture.database import Database
    from cache.capture.known import Known, Shape
    from cache.capture.session_settings import Settings
    from cache.capture.transaction import TransactionBuffer
    from cache.sql.plans import Literals
    from cache.values.loading import ValueSettings

NO_ARGUMENTS = Arguments(())


class Names:
    """Prepared statements and portals, as the server has them."""

    __slots__ = ("_buffer", "_database", "_known", "_settings", "portals", "statements")

    def __init__(self, database: Database, settings: Settings, buffer: TransactionBuffer) -> None:
        self.statements: dict[bytes, Prepared] = {}
        self.portals: dict[bytes, Portal] = {}
        self._database = database
        self._settings = settings
        self._buffer = buffer
        self._known: Known | None = None

    @property
    def known(self) -> Known:
        """What was found out by the newest catalog under the settings in force."""
        known = self._known
        if known is None or self._settings.changed or known.catalog is not self._database.catalog:
            settings = self._settings
            values = settings.values(float_digits_certain=self._database.catalog.float_digits_certain)
            known = self._known = self._database.known(settings.scope, values)
            settings.changed = False
        return known

    def plans(self, text: bytes) -> tuple[tuple[Plan, ...], Literals]:
        """The plans of a text's statements, by the newest catalog and the scope in force."""
        if not self._settings.readable(text):
            return (self._database.unreadable(),), ()
        return self._database.plans(text, self._settings.scope)

    def plan_of(self, prepared: Prepared) -> Plan:
        """The plan by the newest catalog and the scope in force, as the server would analyse it again too."""
        known = self.known
        if prepared.plan is not None and prepared.known is known:
            return prepared.plan
        if prepared.text is None:
            plan = self._database.unreadable()
        else:
            plans, prepared.literals = self.plans(prepared.text)
            plan = plans[prepared.index] if plans else EMPTY
            if prepared.by_sql:
                assert plan.inner is not None
                plan = plan.inner
        prepared.plan, prepared.known, prepared.view = plan, known, known.view(plan)
        return plan

    # -- what the server confirmed

    def bind(self, body: bytes, seq: int, sent_ns: int) -> None:
        """A portal was made by this Bind."""
        portal_end = body.index(0)
        statement_end = body.index(0, portal_end + 1)
        prepared = self.statements.get(body[portal_end + 1 : statement_end])
        if prepared is None:  # made where nobody could see it
            prepared = Prepared(None)
        plan = self.plan_of(prepared)
        portal = self.portals[body[:portal_end]] = Portal(plan, seq, sent_ns)
        portal.prepared = prepared
        portal.bound, portal.literals, portal.settings = body, prepared.literals, self.known.settings
        portal.dirty = self._buffer.dirty

    def arguments(self, literals: Literals, types: tuple[int, ...], body: bytes, settings: ValueSettings) -> Arguments:
        """What Bind's body gives a statement."""
        if _is_cut(body):
            return Arguments(literals, settings=settings)
        _, _, formats, parameters, _ = frontend.bind_fields(body)
        return Arguments(literals, parameters, formats, types, settings=settings)

    def _arguments_of(self, portal: Portal) -> Arguments:
        if portal.arguments is None:
            if portal.prepared is None or portal.settings is None:
                return NO_ARGUMENTS
            types = portal.prepared.types
            portal.arguments = self.arguments(portal.literals, types, portal.bound, portal.settings)
        return portal.arguments

    def described(self, name: bytes, body: bytes) -> None:
        """RowDescription came for a portal."""
        portal = self.portals.get(name)
        if portal is not None and not portal.plan.trivial:
            portal.description = body

    def statement_described(self, name: bytes, body: bytes) -> None:
        """RowDescription came for a prepared statement."""
        prepared = self.statements.get(name)
        if prepared is not None and not self.plan_of(prepared).trivial:
            prepared.description, prepared.description_catalog = body, self._database.catalog

    def suspended(self, name: bytes) -> None:
        """PortalSuspended came for a portal."""
        portal = self.portals.get(name)
        if portal is not None:
            portal.counted = True

    def transaction_ended(self) -> None:
        """The server is idle: only portals WITH HOLD are left."""
        if self.portals:
            self.portals = {name: portal for name, portal in self.portals.items() if portal.holdable}

    # -- what runs

    def execution(self, name: bytes, seq: int, sent_ns: int) -> Execution:
        """The execution of the portal ``name``."""
        portal = self.portals.get(name)
        if portal is None:  # made where nobody could see it
            return Execution(self.plan_of(Prepared(None)), NO_ARGUMENTS, seq, sent_ns)
        plan = portal.plan
        if self.known.view(plan).only_reads:
            execution = Execution(plan, NO_ARGUMENTS, portal.seq, portal.sent_ns)
        else:
            execution = self.resolve(plan, self._arguments_of(portal), seq, sent_ns)
        if plan.command not in (Command.EXECUTE, Command.FETCH):
            # Its snapshot is as old as its Bind.
            execution.seq, execution.sent_ns = portal.seq, portal.sent_ns
            execution.dirty = portal.dirty
            execution.counted = portal.counted
        if not plan.trivial:
            self._tap_portal(execution, portal)
        return execution

    def _tap_portal(self, execution: Execution, portal: Portal) -> None:
        description, formats = portal.description, None
        if description is None and portal.prepared is not None and not _is_cut(portal.bound):
            description = self.description(portal.prepared)
            formats = frontend.bind_result_formats(portal.bound, 0, len(portal.bound))
        if description is None:
            return
        if execution.arguments is NO_ARGUMENTS and self._shape(execution.plan, description, formats).arguments:
            execution.arguments = self._arguments_of(portal)
        self.tap(execution, description, formats)

    def _shape(self, plan: Plan, description: bytes, formats: bytes | None) -> Shape:
        return self.known.view(plan).shape(description, formats)

    def description(self, prepared: Prepared) -> bytes | None:
        """What Describe of the statement showed, if it is certain still."""
        return prepared.description if prepared.description_catalog is self._database.catalog else None

    def tap(self, execution: Execution, description: bytes, formats: bytes | None = None) -> None:
        """Rows of this shape are to come: have them read by whom they concern."""
        plan = execution.plan
        if not plan.fills and not plan.writes:
            return
        shape = self._shape(plan, description, formats)
        execution.readers = tuple([Reader(tap, execution.arguments) for tap in shape.taps])
        execution.refused = shape.refused

    def query(self, plan: Plan, literals: Literals, seq: int, sent_ns: int) -> Execution:
        """The execution of one statement of a Query."""
        if plan.trivial:
            return Execution(plan, NO_ARGUMENTS, seq, sent_ns)
        return self.resolve(plan, Arguments(literals, settings=self.known.settings), seq, sent_ns)

    def resolve(self, plan: Plan, arguments: Arguments, seq: int, sent_ns: int) -> Execution:
        """The execution of ``plan``; for EXECUTE and FETCH, of the statement or cursor it names."""
        if plan.command is Command.EXECUTE:
            return self._resolve_execute(plan, arguments, seq, sent_ns)
        if plan.command is Command.FETCH:
            portal = self.portals.get((plan.name or "").encode())
            if portal is not None:
                execution = Execution(portal.plan, self._arguments_of(portal), portal.seq, portal.sent_ns)
                execution.dirty = portal.dirty
                return execution
        return Execution(plan, arguments, seq, sent_ns)

    def _resolve_execute(self, plan: Plan, arguments: Arguments, seq: int, sent_ns: int) -> Execution:
        prepared = self.statements.get((plan.name or "").encode())
        if prepared is None:
            return Execution(self.plan_of(Prepared(None)), arguments, seq, sent_ns)
        inner = self.plan_of(prepared)
        inner_arguments = Arguments(
            prepared.literals, types=prepared.types, settings=self.known.settings, outer=(arguments, plan.arguments)
        )
        return Execution(inner, inner_arguments, seq, sent_ns)

    # -- what a finished statement did to names

    def finished(self, execution: Execution, seq: int, sent_ns: int, prepared: Prepared | None) -> None:
        """A command finished that was sent at that time; ``prepared`` is what a PREPARE has made."""
        plan = execution.plan
        command = plan.command
        if command is Command.PREPARE and plan.name is not None and prepared is not None:
            self.statements[plan.name.encode()] = prepared
        elif command is Command.DECLARE and plan.name is not None and plan.inner is not None:
            portal = Portal(plan.inner, seq, sent_ns)
            portal.arguments = execution.arguments
            portal.dirty = self._buffer.dirty
            portal.holdable = plan.holdable
            self.portals[plan.name.encode()] = portal
        elif command is Command.DEALLOCATE:
            _forget(self.statements, plan.name)
        elif command is Command.CLOSE:
            _forget(self.portals, plan.name)
        elif command is Command.DISCARD_ALL:
            self.statements.clear()
            self.portals.clear()

    def prepared_by_portal(self, name: bytes) -> Prepared:
        """What SQL PREPARE run by the portal ``name`` makes."""
        portal = self.portals.get(name)
        text = portal.prepared.text if portal is not None and portal.prepared is not None else None
        return Prepared(text, by_sql=text is not None)


def _is_cut(body: bytes) -> bool:
    """Of a Bind that was too long to be looked at only the names are there."""
    return body.count(0) == 2 and body.endswith(b"\0")


def _forget(names: dict[bytes, Prepared] | dict[bytes, Portal], name: str | None) -> None:
    if name is None:
        names.clear()
    else:
        names.pop(name.encode(), None)
