"""One observed session, sans-I/O: bytes of both directions in, finished statements out.

The relay forwards first and shows the same bytes here afterwards. Requests are noted as the client sends them; what
they mean is decided when the server answers, because only then is it certain which statement a name stood for. Nothing
here ever raises: whatever cannot be followed makes the session *blind*, and the bytes go on without us.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from cache import observe
from cache.observe import Arguments, Reader
from cache.outcomes import Execution, Outcomes
from cache.plans import EMPTY, Command, Plan
from cache.settings import Settings
from protocol import backend, frontend
from protocol.framing import FrameScanner
from proxy.pipeline import Kind, OutOfStep, Pipeline, Request
from proxy.prepared import Portal, Prepared

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from cache.counts import Counts
    from cache.database import CatalogQuestion, Database
    from cache.outcomes import Sink
    from cache.plans import Literals
    from cache.values_types import ValueSettings
    from protocol.backend import FieldDescription

    class Backlog(Sink, Protocol):
        """What a session needs of the backlog."""

        date: int


CAPACITY = 262_144
"""Longest message body that is looked at, in bytes; of a longer one only that much is ever held."""

_IDLE = ord("I")
_STATEMENT = ord("S")
_NO_ARGUMENTS = Arguments(())


class Session:
    """Follows one client's session on one database.

    Args:
        parameters: what ParameterStatus reported before the first ReadyForQuery.
        startup: the parameters of the client's StartupMessage.
        on_blind: called once, with the reason in words, when the session cannot be followed any more.
    """

    def __init__(
        self,
        database: Database,
        backlog: Backlog,
        counts: Counts,
        parameters: Mapping[str, str],
        startup: Mapping[str, str],
        *,
        on_blind: Callable[[str], None] | None = None,
    ) -> None:
        self.status = _IDLE
        """Transaction status of the last ReadyForQuery."""
        self.blinded = False
        self.before_commit = False
        self.hold: Awaitable[object] | None = None
        self._database = database
        self._backlog = backlog
        self._counts = counts
        self._on_blind = on_blind
        self._settings = Settings(parameters, startup)
        self._outcomes = Outcomes(database, backlog, counts, self._settings)
        self._pipeline: Pipeline[object] = Pipeline()
        self._statements: dict[bytes, Prepared] = {}
        self._portals: dict[bytes, Portal] = {}
        self._index = 0
        """Which statement of the Query at the head is running."""
        self._running: Execution | None = None
        """The statement at the head, once something of its answer came that matters."""
        self._fatal = False
        self._closed = False
        self._date = 0
        self._began = 0
        self._frontend = FrameScanner(
            self._frontend_handlers(), frontend.LIMITS, capacity=CAPACITY, oversize=self._frontend_oversize
        )
        self._handlers = self._backend_handlers()
        self._backend = FrameScanner(self._handlers, backend.LIMITS, capacity=CAPACITY, oversize=self._backend_oversize)

    # -- what the relay calls

    def frontend(self, data: bytes) -> None:
        """Bytes of the client, which have been forwarded."""
        if self.blinded:
            return
        self._date, self._began = self._backlog.date, time.monotonic_ns()
        try:
            self._frontend.feed(data)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying never does
            self._go_blind(error)

    def backend(self, data: bytes) -> None:
        """Bytes of the server, which have been forwarded."""
        if self.blinded:
            return
        try:
            self._backend.feed(data)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying never does
            self._go_blind(error)

    def lose(self, reason: str) -> None:
        """Bytes went by that were not shown here."""
        self._go_blind(OutOfStep(reason))

    def closed(self, *, backend_ended: bool) -> None:
        """Both legs are gone. Call once.

        Args:
            backend_ended: the server closed the connection, so nothing of this session runs there any more.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self.blinded:
                self._backlog.put(self._outcomes.everything((self._backlog.date, time.monotonic_ns())))
            else:
                self._outcomes.lost(list(self._outstanding()), hold=not (backend_ended or self._fatal))
        except Exception as error:  # noqa: BLE001 - the last resort is to forget everything the session could touch
            self._go_blind(error)

    @property
    def outstanding(self) -> bool:
        """The server owes an answer."""
        return not self._pipeline.at_rest

    @property
    def idle(self) -> bool:
        """Nothing is owed, no transaction is open, and both directions are between two messages."""
        return (
            not self.blinded
            and self.status == _IDLE
            and self._pipeline.at_rest
            and self._backend.aligned
            and self._frontend.aligned
        )

    def wants_catalog(self) -> CatalogQuestion | None:
        """The catalog query, if this session is to ask it now."""
        return self._database.question() if self.idle else None

    # -- blindness

    def _go_blind(self, error: Exception) -> None:
        if self.blinded:
            return
        self.blinded = True
        self._counts.sessions_blinded += 1
        stamp = (self._backlog.date, time.monotonic_ns())
        try:
            outstanding = list(self._outstanding())
        except Exception:  # noqa: BLE001 - everything is flushed below anyway
            outstanding = []
        self._outcomes.blinded(outstanding, stamp)
        self._running = None
        if self._on_blind is not None:
            self._on_blind(f"{type(error).__name__}: {error}")

    def _outstanding(self) -> Iterator[Execution]:
        """Every statement the server has not finished, as if all of them succeeded."""
        index = self._index
        for request in self._pipeline.outstanding():
            payload = request.payload
            if request.kind is Kind.PARSE:
                assert isinstance(payload, tuple)
                self._statements[payload[0]] = payload[1]
            elif request.kind is Kind.BIND:
                assert isinstance(payload, bytes)
                self._bind(request, payload)
            elif request.kind is Kind.EXECUTE:
                assert isinstance(payload, bytes)
                yield self._execution(request)
            elif request.kind is Kind.QUERY:
                plans, literals, _ = _query_payload(request)
                for plan in plans[index:]:
                    yield self._resolve(plan, Arguments(literals, settings=self._value_settings()), request)
                index = 0

    # -- what the client says

    def _frontend_handlers(self) -> list[Callable[[bytes, int, int], None] | None]:
        handlers: list[Callable[[bytes, int, int], None] | None] = [None] * 256
        handlers[frontend.QUERY] = self._on_query
        handlers[frontend.PARSE] = self._on_parse
        handlers[frontend.BIND] = self._on_bind
        handlers[frontend.DESCRIBE] = self._on_describe
        handlers[frontend.EXECUTE] = self._on_execute
        handlers[frontend.CLOSE] = self._on_close
        handlers[frontend.SYNC] = self._on_sync
        handlers[frontend.FUNCTION_CALL] = self._on_function_call
        handlers[frontend.COPY_DONE] = self._on_copy_end
        handlers[frontend.COPY_FAIL] = self._on_copy_end
        return handlers

    def _send(self, kind: Kind, payload: object) -> None:
        self._pipeline.send(Request(kind, payload, self._date, self._began))

    def _on_query(self, buffer: bytes, start: int, end: int) -> None:
        text = buffer[start : end - 1]
        found = self._plans(text)
        for plan in found[0]:
            if plan.ddl:
                self._outcomes.ddl_forwarded()
        self._send(Kind.QUERY, (*found, text))

    def _on_parse(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Parse.decode(buffer[start:end])
        prepared = Prepared(message.query, tuple(message.parameter_types))
        if self._plan_of(prepared).ddl:
            self._outcomes.ddl_forwarded()
        self._send(Kind.PARSE, (message.name, prepared))

    def _on_bind(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.BIND, buffer[start:end])

    def _on_describe(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Describe.decode(buffer[start:end])
        self._send(Kind.DESCRIBE, (message.kind, message.name))

    def _on_execute(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.EXECUTE, buffer[start : buffer.index(0, start, end)])

    def _on_close(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Close.decode(buffer[start:end])
        self._send(Kind.CLOSE, (message.kind, message.name))

    def _on_sync(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.SYNC, None)

    def _on_function_call(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.FUNCTION_CALL, None)

    def _on_copy_end(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.COPY_END, None)

    def _frontend_oversize(self, kind: int, length: int, prefix: bytes) -> None:
        """A message too long to be looked at: what it may write is everything."""
        if kind == frontend.QUERY:
            self._outcomes.ddl_forwarded()
            self._send(Kind.QUERY, ((self._database.unreadable(),), (), b""))
        elif kind == frontend.PARSE:
            name = prefix[: prefix.index(0)]
            self._send(Kind.PARSE, (name, Prepared(None)))
        elif kind == frontend.BIND:
            portal, _, rest = prefix.partition(b"\0")
            statement = rest[: rest.index(0)]
            self._send(Kind.BIND, portal + b"\0" + statement + b"\0")
        elif kind == frontend.FUNCTION_CALL:
            self._send(Kind.FUNCTION_CALL, None)
        else:
            raise OutOfStep(f"a message of {length} bytes where a short one was due")

    # -- what the server says

    def _backend_handlers(self) -> list[Callable[[bytes, int, int], None] | None]:
        handlers: list[Callable[[bytes, int, int], None] | None] = [None] * 256
        handlers[backend.PARSE_COMPLETE] = self._on_parse_complete
        handlers[backend.BIND_COMPLETE] = self._on_bind_complete
        handlers[backend.CLOSE_COMPLETE] = self._on_close_complete
        handlers[backend.ROW_DESCRIPTION] = self._on_row_description
        handlers[backend.NO_DATA] = self._on_no_data
        handlers[backend.DATA_ROW] = self._on_first_row
        handlers[backend.COMMAND_COMPLETE] = self._on_command_complete
        handlers[backend.EMPTY_QUERY_RESPONSE] = self._on_empty_query
        handlers[backend.PORTAL_SUSPENDED] = self._on_portal_suspended
        handlers[backend.COPY_IN_RESPONSE] = self._on_copy_in
        handlers[backend.COPY_BOTH_RESPONSE] = self._on_copy_both
        handlers[backend.FUNCTION_CALL_RESPONSE] = self._on_function_result
        handlers[backend.ERROR_RESPONSE] = self._on_error
        handlers[backend.READY_FOR_QUERY] = self._on_ready
        handlers[backend.PARAMETER_STATUS] = self._on_parameter_status
        return handlers

    def _on_parse_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(Kind.PARSE)
        assert isinstance(request.payload, tuple)
        name, prepared = request.payload
        self._statements[name] = prepared
        self._outcomes.buffer.touch(request.date, request.began)

    def _on_bind_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(Kind.BIND)
        assert isinstance(request.payload, bytes)
        self._outcomes.buffer.touch(request.date, request.began)
        self._bind(request, request.payload)

    def _bind(self, request: Request[object], body: bytes) -> None:
        portal_end = body.index(0)
        statement_end = body.index(0, portal_end + 1)
        name, statement = body[:portal_end], body[portal_end + 1 : statement_end]
        prepared = self._statements.get(statement)
        if prepared is None:  # made where nobody could see it
            prepared = Prepared(None)
        plan = self._plan_of(prepared)
        portal = Portal(plan, _NO_ARGUMENTS, request.date, request.began)
        portal.prepared = prepared
        portal.dirty = self._outcomes.buffer.dirty
        self._portals[name] = portal
        if plan.trivial or statement_end + 1 == len(body):
            # Nobody will ask for its parameters, or they were too long to be looked at.
            return
        message = frontend.Bind.decode(body)
        portal.result_formats = tuple(message.result_formats)
        portal.arguments = Arguments(
            prepared.literals,
            message.parameters,
            message.parameter_formats,
            prepared.types,
            settings=self._value_settings(),
        )

    def _on_close_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(Kind.CLOSE)
        assert isinstance(request.payload, tuple)
        kind, name = request.payload
        (self._statements if kind == _STATEMENT else self._portals).pop(name, None)

    def _on_row_description(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.head()
        if head is None:
            raise OutOfStep("RowDescription came while nothing was due")
        if head.kind is Kind.QUERY:
            if self._trivial(head):
                return
            execution = self._begin(head)
            fields = backend.RowDescription.decode(buffer[start:end]).fields
            self._tap(execution, fields, [field.format for field in fields])
            return
        self._described(self._pipeline.pop(Kind.DESCRIBE), buffer[start:end])

    def _described(self, request: Request[object], body: bytes) -> None:
        assert isinstance(request.payload, tuple)
        kind, name = request.payload
        if kind == _STATEMENT:
            prepared = self._statements.get(name)
            if prepared is not None and not self._plan_of(prepared).trivial:
                prepared.fields = backend.RowDescription.decode(body).fields
                prepared.fields_catalog = self._database.catalog
            return
        portal = self._portals.get(name)
        if portal is not None and not portal.plan.trivial:
            portal.fields = backend.RowDescription.decode(body).fields

    def _on_no_data(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.pop(Kind.DESCRIBE)

    def _on_first_row(self, buffer: bytes, start: int, end: int) -> None:
        """The first row of a statement decides who reads its rows: readers, or nobody."""
        head = self._pipeline.head()
        if head is None or head.kind not in (Kind.QUERY, Kind.EXECUTE):
            raise OutOfStep("DataRow came while no statement was running")
        if self._trivial(head):
            self._handlers[backend.DATA_ROW] = None
            return
        execution = self._begin(head)
        if execution.readers:
            self._handlers[backend.DATA_ROW] = self._on_row
            self._on_row(buffer, start, end)
        else:
            self._handlers[backend.DATA_ROW] = None

    def _on_row(self, buffer: bytes, start: int, end: int) -> None:
        assert self._running is not None
        row = backend.column_values(buffer, start, end)
        exhausted = True
        for reader in self._running.readers:
            reader.read(row)
            exhausted = exhausted and reader.exhausted and reader.tap.write is None
        if exhausted:
            self._handlers[backend.DATA_ROW] = None

    def _on_command_complete(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.head()
        if head is None:
            raise OutOfStep("CommandComplete came while nothing was due")
        if self._trivial(head):
            self._outcomes.buffer.touch(head.date, head.began)
            self._next(head)
            return
        execution = self._begin(head)
        self._outcomes.finished(execution, buffer[start : end - 1])
        self._names(execution.plan, head)
        self._next(head)
        if execution.plan.settings or execution.plan.shadows:
            self._plan_again()

    def _on_empty_query(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.head()
        if head is None or head.kind not in (Kind.QUERY, Kind.EXECUTE):
            raise OutOfStep("EmptyQueryResponse came while no statement was running")
        self._next(head)

    def _on_portal_suspended(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.expect(Kind.EXECUTE)
        self._outcomes.suspended(self._begin(head))
        self._next(head)

    def _next(self, head: Request[object]) -> None:
        """The statement at the head is over."""
        self._running = None
        self._handlers[backend.DATA_ROW] = self._on_first_row
        if head.kind is Kind.QUERY:
            self._index += 1
        else:
            self._pipeline.pop(Kind.EXECUTE)

    def _on_copy_in(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.copy_in()

    def _on_copy_both(self, buffer: bytes, start: int, end: int) -> None:
        raise OutOfStep("replication is not observed")

    def _on_function_result(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.expect(Kind.FUNCTION_CALL)
        self._outcomes.buffer.doubt()

    def _on_error(self, buffer: bytes, start: int, end: int) -> None:
        self._fatal = self._fatal or _is_fatal(buffer[start:end])
        self._running = None
        self._handlers[backend.DATA_ROW] = self._on_first_row
        failed = self._pipeline.error()
        if failed is None:
            return
        self._outcomes.buffer.touch(failed.date, failed.began)
        self._outcomes.failed()
        if failed.kind is Kind.PARSE:
            assert isinstance(failed.payload, tuple)
            if failed.payload[0] == b"":
                # The old unnamed statement is gone before the new one is read.
                self._statements.pop(b"", None)

    def _on_ready(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.ready()
        self.status = buffer[start]
        if request.kind is Kind.QUERY:
            self._index = 0
            self._statements.pop(b"", None)
        if self.status == _IDLE and self._portals:
            self._portals = {name: portal for name, portal in self._portals.items() if portal.holdable}
        self._outcomes.ready(self.status, at_rest=self._pipeline.at_rest)

    def _on_parameter_status(self, buffer: bytes, start: int, end: int) -> None:
        message = backend.ParameterStatus.decode(buffer[start:end])
        self._settings.report(message.name.decode("utf-8", "replace"), message.value.decode("utf-8", "replace"))

    def _backend_oversize(self, kind: int, length: int, prefix: bytes) -> None:
        """Only rows may be that long; nothing else that matters is."""
        if kind == backend.DATA_ROW:
            execution = self._running or self._begin_head()
            for reader in execution.readers:
                reader.miss()
        elif kind != backend.PARAMETER_STATUS and kind != backend.ERROR_RESPONSE:
            raise OutOfStep(f"a message of {length} bytes where a short one was due")
        elif kind == backend.ERROR_RESPONSE:
            self._on_error(prefix, 0, len(prefix))

    # -- statements

    def _plans(self, text: bytes) -> tuple[tuple[Plan, ...], Literals]:
        if not self._settings.readable(text):
            return (self._database.unreadable(),), ()
        return self._database.plans(text, self._settings.scope)

    def _plan_of(self, prepared: Prepared) -> Plan:
        """The plan by the newest catalog and the scope in force, as the server would analyse it again too."""
        catalog, scope = self._database.catalog, self._settings.scope
        if prepared.plan is not None and prepared.catalog is catalog and prepared.scope == scope:
            return prepared.plan
        if prepared.text is None:
            plan = self._database.unreadable()
        else:
            plans, prepared.literals = self._plans(prepared.text)
            plan = plans[prepared.index] if plans else EMPTY
            if prepared.by_sql:
                assert plan.inner is not None
                plan = plan.inner
        prepared.plan, prepared.catalog, prepared.scope = plan, catalog, scope
        return plan

    def _trivial(self, head: Request[object]) -> bool:
        """The statement at the head is a Query's and concerns nobody: the common case, kept short."""
        if head.kind is not Kind.QUERY or not self._database.learned:
            return False
        plans = head.payload[0]  # type: ignore[index]  # a Query's payload is _query_payload's
        return self._index < len(plans) and plans[self._index].trivial

    def _begin_head(self) -> Execution:
        head = self._pipeline.head()
        if head is None:
            raise OutOfStep("an answer came while nothing was due")
        return self._begin(head)

    def _begin(self, head: Request[object]) -> Execution:
        """The statement at the head, once known."""
        execution = self._running
        if execution is None:
            if head.kind is Kind.QUERY:
                execution = self._query_execution(head)
            elif head.kind is Kind.EXECUTE:
                execution = self._execution(head)
            else:
                raise OutOfStep(f"rows or a tag came while an answer to {head.kind.name} was due")
            self._running = execution
        return execution

    def _plan_again(self) -> None:
        """Names may mean something else now in statements that were sent already."""
        for request in self._pipeline.outstanding():
            if request.kind is Kind.QUERY:
                text = _query_payload(request)[2]
                if text:
                    request.payload = (*self._plans(text), text)

    def _query_execution(self, head: Request[object]) -> Execution:
        plans, literals, _ = _query_payload(head)
        if self._index < len(plans):
            plan = plans[self._index]
        elif plans and plans[-1].whole:
            plan = plans[-1]
        else:
            raise OutOfStep(f"the server found more than {len(plans)} statements in a Query")
        return self._resolve(plan, Arguments(literals, settings=self._value_settings()), head)

    def _execution(self, request: Request[object]) -> Execution:
        assert isinstance(request.payload, bytes)
        portal = self._portals.get(request.payload)
        if portal is None:  # made where nobody could see it
            return Execution(self._plan_of(Prepared(None)), _NO_ARGUMENTS, request.date, request.began)
        execution = self._resolve(portal.plan, portal.arguments, request)
        if portal.plan.command not in (Command.EXECUTE, Command.FETCH):
            # Its snapshot is as old as its Bind.
            execution.date, execution.began = portal.date, portal.began
            execution.dirty = portal.dirty
        fields = self._portal_fields(portal)
        if fields is not None:
            self._tap(execution, *fields)
        return execution

    def _portal_fields(self, portal: Portal) -> tuple[Sequence[FieldDescription], Sequence[int]] | None:
        if portal.fields is not None:
            return portal.fields, [field.format for field in portal.fields]
        prepared = portal.prepared
        if prepared is None or prepared.fields is None or prepared.fields_catalog is not self._database.catalog:
            return None
        formats = portal.result_formats or (0,)
        if len(formats) == 1:
            formats *= len(prepared.fields)
        if len(formats) != len(prepared.fields):
            return None
        return prepared.fields, formats

    def _resolve(self, plan: Plan, arguments: Arguments, request: Request[object]) -> Execution:
        """The execution of ``plan``; for EXECUTE and FETCH, of the statement or cursor it names."""
        if plan.command is Command.EXECUTE:
            return self._resolve_execute(plan, arguments, request)
        if plan.command is Command.FETCH:
            portal = self._portals.get((plan.name or "").encode())
            if portal is not None:
                execution = Execution(portal.plan, portal.arguments, portal.date, portal.began)
                execution.dirty = portal.dirty
                return execution
        return Execution(plan, arguments, request.date, request.began)

    def _resolve_execute(self, plan: Plan, arguments: Arguments, request: Request[object]) -> Execution:
        prepared = self._statements.get((plan.name or "").encode())
        if prepared is None:
            return Execution(self._plan_of(Prepared(None)), arguments, request.date, request.began)
        inner = self._plan_of(prepared)
        inner_arguments = Arguments(
            prepared.literals, types=prepared.types, settings=self._value_settings(), outer=(arguments, plan.arguments)
        )
        return Execution(inner, inner_arguments, request.date, request.began)

    def _value_settings(self) -> ValueSettings:
        return self._settings.values(float_digits_certain=self._database.catalog.float_digits_certain)

    def _tap(self, execution: Execution, fields: Sequence[FieldDescription], formats: Sequence[int]) -> None:
        plan = execution.plan
        if not plan.fills and not plan.writes:
            return
        if plan.fills:
            self._look_for_strangers(fields)
        taps, refused = observe.taps(plan, fields, formats, self._value_settings())
        execution.readers = tuple(Reader(tap, execution.arguments) for tap in taps)
        execution.refused = tuple((bound.rule.label, reason) for bound, reason in refused)

    def _look_for_strangers(self, fields: Sequence[FieldDescription]) -> None:
        relations = self._database.catalog.relations
        oids = {field.table_oid for field in fields if field.table_oid}
        if oids and not oids & relations.keys():
            for oid in oids:
                self._database.strange(oid)

    def _names(self, plan: Plan, request: Request[object]) -> None:
        """What a finished statement did to prepared statements and cursors."""
        command = plan.command
        if command is Command.PREPARE and plan.name is not None:
            self._prepare(plan.name, request)
        elif command is Command.DECLARE and plan.name is not None and plan.inner is not None:
            assert self._running is not None
            portal = Portal(plan.inner, self._running.arguments, request.date, request.began)
            portal.dirty = self._outcomes.buffer.dirty
            portal.holdable = plan.holdable
            self._portals[plan.name.encode()] = portal
        elif command is Command.DEALLOCATE:
            _forget(self._statements, plan.name)
        elif command is Command.CLOSE:
            _forget(self._portals, plan.name)
        elif command is Command.DISCARD_ALL:
            self._statements.clear()
            self._portals.clear()

    def _prepare(self, name: str, request: Request[object]) -> None:
        if request.kind is Kind.QUERY:
            prepared = Prepared(_query_payload(request)[2], by_sql=True, index=self._index)
        else:
            assert isinstance(request.payload, bytes)
            portal = self._portals.get(request.payload)
            text = portal.prepared.text if portal is not None and portal.prepared is not None else None
            prepared = Prepared(text, by_sql=text is not None)
        self._statements[name.encode()] = prepared


def _query_payload(request: Request[object]) -> tuple[tuple[Plan, ...], Literals, bytes]:
    assert isinstance(request.payload, tuple)
    plans, literals, text = request.payload
    return plans, literals, text


def _forget(names: dict[bytes, Prepared] | dict[bytes, Portal], name: str | None) -> None:
    if name is None:
        names.clear()
    else:
        names.pop(name.encode(), None)


def _is_fatal(body: bytes) -> bool:
    """The error ends the session (severity, field V; manual, "Error and Notice Message Fields")."""
    return b"VFATAL\0" in body or b"VPANIC\0" in body
