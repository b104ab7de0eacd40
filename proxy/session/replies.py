"""What the server of one session answers: each reply meets the request it answers, and statements come to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.sql.plans import Command
from protocol import backend, codes
from protocol.errors import MessageError
from proxy.session.pending_requests import (
    BindRequest,
    CloseRequest,
    DescribeRequest,
    ExecuteRequest,
    FunctionCallRequest,
    ParseRequest,
    QueryRequest,
)
from proxy.session.pipeline import Desynchronized, Pipeline
from proxy.session.prepared import PreparedStatement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.capture.database import Database
    from cache.capture.outcomes import Execution, Outcomes
    from cache.capture.session_settings import Settings
    from proxy.session.pending_requests import StatementRequest
    from proxy.session.prepared_objects import PreparedObjects
    from proxy.session.requests import Requests


class Replies:
    """Handlers of the backend's messages."""

    __slots__ = (
        "_collecting",
        "_columns",
        "_database",
        "_objects",
        "_outcomes",
        "_pipeline",
        "_requests",
        "_running",
        "_settings",
        "fatal",
        "handlers",
        "status",
    )

    def __init__(
        self,
        database: Database,
        settings: Settings,
        pipeline: Pipeline,
        objects: PreparedObjects,
        requests: Requests,
        outcomes: Outcomes,
    ) -> None:
        self.status = codes.IDLE
        """Transaction status of the last ReadyForQuery."""
        self.fatal = False
        """The server said that it ends the session."""
        self._database = database
        self._settings = settings
        self._pipeline = pipeline
        self._objects = objects
        self._requests = requests
        self._outcomes = outcomes
        self._running: Execution | None = None
        """The statement at the head, once something of its answer came that matters."""
        self._collecting: Execution
        """The statement whose rows ``_row`` is handling."""
        self._columns = 0
        """How many of a row's first columns its collectors look at."""
        self.handlers: list[Callable[[bytes, int, int], None] | None] = [None] * 256
        """For a FrameScanner, by type byte."""
        handlers = self.handlers
        handlers[backend.PARSE_COMPLETE] = self._parse_complete
        handlers[backend.BIND_COMPLETE] = self._bind_complete
        handlers[backend.CLOSE_COMPLETE] = self._close_complete
        handlers[backend.ROW_DESCRIPTION] = self._row_description
        handlers[backend.NO_DATA] = self._no_data
        handlers[backend.DATA_ROW] = self._first_row
        handlers[backend.COMMAND_COMPLETE] = self._command_complete
        handlers[backend.EMPTY_QUERY_RESPONSE] = self._empty_query
        handlers[backend.PORTAL_SUSPENDED] = self._portal_suspended
        handlers[backend.COPY_IN_RESPONSE] = self._copy_in
        handlers[backend.COPY_BOTH_RESPONSE] = self._copy_both
        handlers[backend.FUNCTION_CALL_RESPONSE] = self._function_result
        handlers[backend.ERROR_RESPONSE] = self._error
        handlers[backend.READY_FOR_QUERY] = self._ready
        handlers[backend.PARAMETER_STATUS] = self._parameter_status

    # -- statements and portals are made

    def _parse_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(ParseRequest, "ParseComplete")
        self._objects.parsed(request)
        self._outcomes.buffer.touch(request.seq, request.sent_ns)

    def _bind_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(BindRequest, "BindComplete")
        self._outcomes.buffer.touch(request.seq, request.sent_ns)
        self._objects.bound(request)

    def _close_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(CloseRequest, "CloseComplete")
        self._objects.closed(request.kind, request.name)

    # -- a statement runs

    def _row_description(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.head()
        if isinstance(head, QueryRequest):
            if not self._trivial(head):
                self._objects.collect_rows(self._begin(head), buffer[start:end])
            return
        request = self._pipeline.pop(DescribeRequest, "RowDescription")
        self._objects.described(request.kind, request.name, buffer[start:end])

    def _no_data(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.pop(DescribeRequest, "NoData")

    def _first_row(self, buffer: bytes, start: int, end: int) -> None:
        """The first row of a statement decides whether its rows are read."""
        head = self._pipeline.expect_statement("DataRow")
        if self._trivial(head) or not (execution := self._begin(head)).collectors:
            self.handlers[backend.DATA_ROW] = None
            return
        self._collecting = execution
        self._columns = max([collector.row_plan.columns for collector in execution.collectors])
        self.handlers[backend.DATA_ROW] = self._row
        self._row(buffer, start, end)

    def _row(self, buffer: bytes, start: int, end: int) -> None:
        row = backend.first_values(buffer, start, end, self._columns)
        if len(row) < self._columns:
            raise Desynchronized("a DataRow has fewer columns than were described")
        more = False
        for collector in self._collecting.collectors:
            # Whether a RETURNING had more rows than are read matters as well.
            if collector.add(row) or collector.row_plan.write is not None:
                more = True
            if collector.bytes_left < 0 and collector.row_plan.write is None:
                self._outcomes.fill_early(self._collecting)
        if not more:
            self.handlers[backend.DATA_ROW] = None

    def _command_complete(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.expect_statement("CommandComplete")
        if self._trivial(head):
            self._outcomes.buffer.touch(head.seq, head.sent_ns)
            self._next(head)
            return
        execution = self._begin(head)
        plan, scope = execution.plan, self._settings.scope
        self._outcomes.finished(execution, buffer[start : end - 1])
        if plan.command is not Command.NONE:
            prepared = self._prepared(head) if plan.command is Command.PREPARE else None
            self._objects.finished(execution, head.seq, head.sent_ns, prepared)
        self._next(head)
        if self._settings.scope is not scope:
            self._requests.plan_again()

    def _prepared(self, request: StatementRequest) -> PreparedStatement:
        """What an SQL PREPARE that has run makes."""
        if isinstance(request, QueryRequest):
            return PreparedStatement(request.text, (), self._settings.reading, by_sql=True, index=request.current)
        return self._objects.prepared_by_portal(request.portal)

    def _empty_query(self, buffer: bytes, start: int, end: int) -> None:
        self._next(self._pipeline.expect_statement("EmptyQueryResponse"))

    def _portal_suspended(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.expect(ExecuteRequest, "PortalSuspended")
        self._outcomes.suspended(self._begin(head))
        self._next(head)

    def _next(self, head: StatementRequest) -> None:
        """The statement at the head is over."""
        self._running = None
        self.handlers[backend.DATA_ROW] = self._first_row
        if isinstance(head, QueryRequest):
            head.current += 1
        else:
            self._objects.counted(head.portal)
            self._pipeline.executed()

    def _copy_in(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.copy_in()

    def _copy_both(self, buffer: bytes, start: int, end: int) -> None:
        raise Desynchronized("replication is not observed")

    def _function_result(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.expect(FunctionCallRequest, "FunctionCallResponse")
        self._outcomes.function_called()

    # -- ends

    def _error(self, buffer: bytes, start: int, end: int) -> None:
        self.fatal = self.fatal or _is_fatal(buffer[start:end])
        self._running = None
        self.handlers[backend.DATA_ROW] = self._first_row
        failed = self._pipeline.error()
        if failed is None:
            return
        self._outcomes.buffer.touch(failed.seq, failed.sent_ns)
        unseen = isinstance(failed, (QueryRequest, ExecuteRequest)) and self._objects.runs_unseen_code(failed)
        self._outcomes.failed(unseen_code=unseen)
        if isinstance(failed, ParseRequest) and not failed.name:
            # The old unnamed statement is gone before the new one is read.
            self._objects.statements.pop(b"", None)

    def _ready(self, buffer: bytes, start: int, end: int) -> None:
        if end - start != 1:
            raise MessageError("ReadyForQuery without a transaction status")
        request = self._pipeline.ready()
        self.status = buffer[start]
        if isinstance(request, QueryRequest):
            self._objects.statements.pop(b"", None)
        if self.status == codes.IDLE:
            self._objects.transaction_ended()
        self._outcomes.ready(self.status, at_rest=self._pipeline.at_rest)

    def _parameter_status(self, buffer: bytes, start: int, end: int) -> None:
        message = backend.ParameterStatus.decode(buffer[start:end])
        self._settings.report(message.name.decode("utf-8", "replace"), message.value.decode("utf-8", "replace"))

    def oversize(self, kind: int, length: int, prefix: bytes) -> None:
        """Only rows, errors and parameters may be that long; nothing else that matters is."""
        if kind == backend.DATA_ROW:
            execution = self._begin(self._pipeline.expect_statement("DataRow"))
            for collector in execution.collectors:
                collector.skip()
        elif kind == backend.ERROR_RESPONSE:
            self._error(prefix, 0, len(prefix))
        elif kind != backend.PARAMETER_STATUS:
            raise Desynchronized(f"a message of {length} bytes where a short one was due")

    # -- which statement it is

    def _trivial(self, head: StatementRequest) -> bool:
        """The statement at the head is a Query's and concerns no rule: the common case, kept short."""
        if not isinstance(head, QueryRequest) or not self._database.learned:
            return False
        plans, current = head.plans, head.current
        return current < len(plans) and plans[current].trivial

    def _begin(self, head: StatementRequest) -> Execution:
        """The execution of the statement at the head, made when it is first asked for."""
        execution = self._running
        if execution is None:
            execution = self._running = self._execution(head)
        return execution

    def _execution(self, head: StatementRequest) -> Execution:
        if not isinstance(head, QueryRequest):
            return self._objects.portal_execution(head.portal, head.seq, head.sent_ns)
        if not head.current and not self._settings.reads_alike(head.text, head.reading):
            self._requests.plan(head)  # it was sent before an earlier statement changed how texts are read
        plans = head.plans
        if head.current < len(plans):
            plan = plans[head.current]
        elif plans and plans[-1].whole:
            plan = plans[-1]
        else:
            raise Desynchronized(f"the server found more than {len(plans)} statements in a Query")
        return self._objects.query_execution(plan, head.literals, head.seq, head.sent_ns)

    def outstanding(self) -> list[Execution]:
        """Every statement the server has not finished, as if all of them succeeded. The session may go on."""
        objects = self._objects
        statements, portals = objects.statements.copy(), objects.portals.copy()
        try:
            return list(self._outstanding())
        finally:
            objects.statements, objects.portals = statements, portals

    def _outstanding(self) -> Iterator[Execution]:
        objects = self._objects
        for request in self._pipeline.outstanding():
            if isinstance(request, ParseRequest):
                objects.statements[request.name] = request.statement
            elif isinstance(request, BindRequest):
                objects.bound(request)
            elif isinstance(request, ExecuteRequest):
                yield objects.portal_execution(request.portal, request.seq, request.sent_ns)
            elif isinstance(request, QueryRequest):
                for plan in request.plans[request.current :]:
                    yield objects.query_execution(plan, request.literals, request.seq, request.sent_ns)


def _is_fatal(body: bytes) -> bool:
    """The error ends the session (severity, field V; manual, "Error and Notice Message Fields")."""
    return b"VFATAL\0" in body or b"VPANIC\0" in body
