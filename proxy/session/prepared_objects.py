"""The prepared statements and portals of one session by name, and what executing one of them means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.capture.arguments import Arguments
from cache.capture.outcomes import Execution
from cache.capture.plan_views import NOTHING_TO_READ
from cache.capture.rows import RowCollector
from cache.changes import Kind
from cache.sql.plans import EMPTY, Command
from protocol import codes, frontend
from proxy.session.pending_requests import QueryRequest
from proxy.session.prepared import Portal, PreparedStatement

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.capture.database import Database
    from cache.capture.plan_views import PlanView, PlanViews, ResultShape
    from cache.capture.session_settings import Settings
    from cache.capture.transaction import TransactionBuffer
    from cache.sql.plans import Literals, Plan
    from cache.values.loading import ValueSettings
    from proxy.session.pending_requests import BindRequest, ParseRequest, StatementRequest

NO_ARGUMENTS = Arguments(())
OUT_OF_DATE = "description out of date"
MAY_BE_ANOTHER = "may be another statement"
_NAMING = (Command.EXECUTE, Command.FETCH)


class PreparedObjects:
    """Prepared statements and portals, as the server has them."""

    __slots__ = ("_buffer", "_database", "_views", "portals", "settings", "statements")

    def __init__(self, database: Database, settings: Settings, buffer: TransactionBuffer) -> None:
        self.statements: dict[bytes, PreparedStatement] = {}
        self.portals: dict[bytes, Portal] = {}
        self._database = database
        self.settings = settings
        self._buffer = buffer
        self._views: PlanViews | None = None

    @property
    def views(self) -> PlanViews:
        """The plan views by the newest catalog, for the settings in force."""
        views = self._views
        if views is None or self.settings.changed or views.catalog is not self._database.catalog:
            settings = self.settings
            values = settings.values(float_digits_certain=self._database.catalog.float_digits_certain)
            views = self._views = self._database.plan_views(settings.scope, values)
            settings.changed = False
        return views

    def plans(self, text: bytes) -> tuple[tuple[Plan, ...], Literals]:
        """The plans of a text's statements, by the newest catalog and the scope in force."""
        if not self.settings.readable(text):
            return (self._database.unreadable(),), ()
        return self._database.plans(text, self.settings.scope)

    def view_of(self, prepared: PreparedStatement) -> PlanView:
        """The view of the statement's plan by the newest catalog and the scope in force, as the server would analyse it
        again too."""
        views = self.views
        view = prepared.view
        if view is None or prepared.views is not views:
            view = prepared.view = views.of(self._plan(prepared))
            prepared.views = views
        return view

    def _plan(self, prepared: PreparedStatement) -> Plan:
        if prepared.text is None:
            return self._database.unreadable()
        if not self.settings.reads_alike(prepared.text, prepared.reading):
            return self._database.unreadable()  # the server has the statement as it read it then
        plans, prepared.literals = self.plans(prepared.text)
        if not plans:
            return EMPTY
        # Under another encoding the text may have become unreadable: one plan stands for all of it then.
        plan = plans[min(prepared.index, len(plans) - 1)]
        return plan.inner if prepared.by_sql and plan.inner is not None else plan

    # -- what the server confirmed

    def parsed(self, request: ParseRequest) -> None:
        """ParseComplete came: there is a prepared statement."""
        statement = request.statement
        reading = self.settings.reading
        if statement.reading is not reading:
            if statement.text is not None and not self.settings.reads_alike(statement.text, statement.reading):
                statement.view = None  # it was sent before an earlier statement changed how texts are read
            statement.reading = reading
        self.prepared(request.name, statement)

    def prepared(self, name: bytes, prepared: PreparedStatement) -> None:
        """There is a prepared statement now: by Parse, or by PREPARE."""
        prepared.meaning, prepared.unseen_code = self.settings.meaning, self.settings.unseen_code
        self.statements[name] = prepared

    def bound(self, request: BindRequest) -> None:
        """BindComplete came: there is a portal."""
        prepared = self.statements.get(request.statement)
        if prepared is None:  # made unseen
            prepared = unseen_statement()
        plan = self.view_of(prepared).plan
        portal = self.portals[request.portal] = Portal(plan, request.seq, request.sent_ns)
        portal.prepared = prepared
        portal.bind, portal.literals, portal.settings = request.body, prepared.literals, self.views.settings
        portal.dirty = self._buffer.dirty
        portal.meaning, portal.unseen_code = self.settings.meaning, prepared.unseen_code

    def closed(self, kind: int, name: bytes) -> None:
        """CloseComplete came for a prepared statement or a portal."""
        objects = self.statements if kind == codes.PREPARED_STATEMENT else self.portals
        objects.pop(name, None)

    def described(self, kind: int, name: bytes, description: bytes) -> None:
        """RowDescription came for a prepared statement or a portal."""
        if kind == codes.PREPARED_STATEMENT:
            prepared = self.statements.get(name)
            if prepared is not None and not (view := self.view_of(prepared)).trivial:
                prepared.description, prepared.description_catalog = description, self._database.catalog
                prepared.described_object = self._named_object(view.plan)
        else:
            portal = self.portals.get(name)
            if portal is not None and not portal.plan.trivial:
                portal.description = description
                portal.described_object = self._named_object(portal.plan)

    def counted(self, name: bytes) -> None:
        """PortalSuspended or CommandComplete came for a portal: its statement was counted. Run again, it goes on."""
        portal = self.portals.get(name)
        if portal is not None:
            portal.already_counted = True

    def transaction_ended(self) -> None:
        """The server is idle: only portals WITH HOLD are left."""
        if self.portals:
            self.portals = {name: portal for name, portal in self.portals.items() if portal.holdable}

    # -- what runs

    def portal_execution(self, name: bytes, seq: int, sent_ns: int) -> Execution:
        """The execution of the portal ``name``."""
        portal = self.portals.get(name)
        if portal is None:  # made unseen
            return Execution(self.view_of(unseen_statement()).plan, NO_ARGUMENTS, seq, sent_ns)
        plan = portal.plan
        if self.views.of(plan).only_reads:
            execution = Execution(plan, NO_ARGUMENTS, portal.seq, portal.sent_ns)
        else:
            execution = self._resolve(plan, self._arguments_of(portal), seq, sent_ns)
        execution.another = execution.another or self.may_be_another(portal)
        if plan.command not in _NAMING:
            # Its snapshot is as old as its Bind.
            execution.seq, execution.sent_ns = portal.seq, portal.sent_ns
            execution.dirty = portal.dirty
            execution.already_counted = portal.already_counted
        if not plan.trivial:
            self._collect_portal_rows(execution, portal)
        return execution

    def query_execution(self, plan: Plan, literals: Literals, seq: int, sent_ns: int) -> Execution:
        """The execution of one statement of a Query."""
        if plan.trivial:
            return Execution(plan, NO_ARGUMENTS, seq, sent_ns)
        return self._resolve(plan, Arguments(literals, settings=self.views.settings), seq, sent_ns)

    def _resolve(self, plan: Plan, arguments: Arguments, seq: int, sent_ns: int) -> Execution:
        """The execution of ``plan``; for EXECUTE and FETCH, of the statement or cursor it names."""
        if plan.command is Command.EXECUTE:
            return self._resolve_execute(plan, arguments, seq, sent_ns)
        if plan.command is Command.FETCH:
            portal = self.portals.get((plan.name or "").encode())
            if portal is not None:
                execution = Execution(portal.plan, self._arguments_of(portal), portal.seq, portal.sent_ns)
                execution.dirty = portal.dirty
                execution.another = self.may_be_another(portal)
                return execution
        return Execution(plan, arguments, seq, sent_ns)

    def _named_object(self, plan: Plan) -> PreparedStatement | Portal | None:
        """The prepared statement that an EXECUTE names, or the cursor that a FETCH names."""
        if plan.command is Command.EXECUTE:
            return self.statements.get((plan.name or "").encode())
        if plan.command is Command.FETCH:
            return self.portals.get((plan.name or "").encode())
        return None

    def runs_unseen_code(self, request: StatementRequest) -> bool:
        """The statement that is running for this request runs code that cannot be seen."""
        if isinstance(request, QueryRequest):
            plan = request.plans[min(request.current, len(request.plans) - 1)] if request.plans else EMPTY
        else:
            portal = self.portals.get(request.portal)
            plan = EMPTY if portal is None else portal.plan
        named = self._named_object(plan)
        inner = self.view_of(named).plan if isinstance(named, PreparedStatement) else getattr(named, "plan", EMPTY)
        return plan.opaque or inner.opaque

    def _resolve_execute(self, plan: Plan, arguments: Arguments, seq: int, sent_ns: int) -> Execution:
        prepared = self.statements.get((plan.name or "").encode())
        if prepared is None:
            return Execution(self.view_of(unseen_statement()).plan, arguments, seq, sent_ns)
        inner = self.view_of(prepared).plan
        inner_arguments = Arguments(
            prepared.literals, types=prepared.types, settings=self.views.settings, outer=(arguments, plan.arguments)
        )
        execution = Execution(inner, inner_arguments, seq, sent_ns)
        execution.another = self.may_be_another(prepared)
        return execution

    # -- constants and rows

    def arguments(
        self, literals: Literals, types: tuple[int, ...], bind: bytes | None, settings: ValueSettings | None
    ) -> Arguments:
        """The constants of a statement that was bound by a Bind with this body. Raises ``MessageError``."""
        if bind is None:
            return Arguments(literals, settings=settings)
        _, _, formats, parameters, _ = frontend.bind_fields(bind)
        return Arguments(literals, parameters, formats, types, settings=settings)

    def _arguments_of(self, portal: Portal) -> Arguments:
        if portal.arguments is None:
            types = () if portal.prepared is None else portal.prepared.types
            portal.arguments = self.arguments(portal.literals, types, portal.bind, portal.settings)
        return portal.arguments

    @property
    def meaning(self) -> int:
        """``Settings.meaning``."""
        return self.settings.meaning

    def may_be_another(self, known: PreparedStatement | Portal) -> bool:
        """Code that cannot be seen has run since then: the name may stand for another statement or cursor now."""
        return known.unseen_code != self.settings.unseen_code

    def shape(
        self, view: PlanView, prepared: PreparedStatement, meaning: int, formats: Callable[[], bytes]
    ) -> ResultShape:
        """What to read from rows of which only Describe of the statement has shown the columns.

        Args:
            meaning: ``Settings.meaning`` when it was bound.
            formats: Bind's result-column format codes as they were sent.
        """
        if prepared.description is None:
            return NOTHING_TO_READ
        if prepared.description_catalog is not self._database.catalog or prepared.meaning != meaning:
            return view.refused(OUT_OF_DATE)
        return view.shape(prepared.description, formats())

    def collect_rows(self, execution: Execution, description: bytes) -> None:
        """Rows of this RowDescription's body are to come: give the execution a collector for each rule they concern."""
        plan = execution.plan
        if plan.fills or plan.writes:
            self._collect(execution, self.views.of(plan).shape(description))

    def _collect_portal_rows(self, execution: Execution, portal: Portal) -> None:
        plan = execution.plan
        if not plan.fills and not plan.writes:
            return
        shape = self._portal_shape(self.views.of(plan), portal)
        if shape.needs_arguments and execution.arguments is NO_ARGUMENTS:
            execution.arguments = self._arguments_of(portal)
        self._collect(execution, shape)

    def _portal_shape(self, view: PlanView, portal: Portal) -> ResultShape:
        described, bind = portal if portal.description is not None else portal.prepared, portal.bind
        if described is None or described.description is None:
            return NOTHING_TO_READ
        if portal.plan.command in _NAMING:
            # What it names is run as it is now, not as it was at Bind.
            named = self._named_object(portal.plan)
            current = portal.meaning == self.settings.meaning and described.described_object is named
            if isinstance(named, PreparedStatement):
                current = current and named.meaning == portal.meaning
            if not current:
                return view.refused(OUT_OF_DATE)
        if isinstance(described, Portal):
            return view.shape(described.description)
        if bind is None:
            return NOTHING_TO_READ
        return self.shape(view, described, portal.meaning, lambda: frontend.bind_result_formats(bind, 0, len(bind)))

    def _collect(self, execution: Execution, shape: ResultShape) -> None:
        row_plans, refused = shape.row_plans, shape.refused
        if execution.another:
            row_plans = tuple(row_plan for row_plan in row_plans if row_plan.kind is not Kind.FILL)
            refused = self.views.of(execution.plan).refused(MAY_BE_ANOTHER).refused
        execution.collectors = tuple([RowCollector(row_plan, execution.arguments) for row_plan in row_plans])
        execution.refused = refused
        if shape.unknown_tables:
            self._database.note_unknown_tables(shape.unknown_tables)

    # -- what a finished statement did to them

    def finished(self, execution: Execution, seq: int, sent_ns: int, prepared: PreparedStatement | None) -> None:
        """A command finished that was sent at that time; ``prepared`` is what a PREPARE has made."""
        plan = execution.plan
        command = plan.command
        if command is Command.PREPARE and plan.name is not None and prepared is not None:
            self.prepared(plan.name.encode(), prepared)
        elif command is Command.DECLARE and plan.name is not None and plan.inner is not None:
            portal = Portal(plan.inner, seq, sent_ns)
            portal.arguments = execution.arguments
            portal.dirty = self._buffer.dirty
            portal.holdable = plan.holdable
            portal.meaning, portal.unseen_code = self.settings.meaning, self.settings.unseen_code
            self.portals[plan.name.encode()] = portal
        elif command is Command.DEALLOCATE:
            _forget(self.statements, plan.name)
        elif command is Command.CLOSE:
            _forget(self.portals, plan.name)
        elif command is Command.DISCARD_ALL:
            self.statements.clear()
            self.portals.clear()

    def prepared_by_portal(self, name: bytes) -> PreparedStatement:
        """What SQL PREPARE run by the portal ``name`` makes."""
        portal = self.portals.get(name)
        prepared = None if portal is None else portal.prepared
        if prepared is None or prepared.text is None:
            return unseen_statement()
        return PreparedStatement(prepared.text, (), prepared.reading, by_sql=True)


def unseen_statement() -> PreparedStatement:
    """A prepared statement of which the text is not known: it may do anything."""
    return PreparedStatement(None, (), (None, None))


def _forget(objects: dict[bytes, PreparedStatement] | dict[bytes, Portal], name: str | None) -> None:
    if name is None:
        objects.clear()
    else:
        objects.pop(name.encode(), None)
