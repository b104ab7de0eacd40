"""Sessions that carry out the units of a workload with psycopg or asyncpg, and a journal of what they did.

A statement may fail with any error. A lost connection is made again, however long the server is away.
"""

import asyncio
import io
import logging
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import asyncpg
import psycopg

from tests.consistency.statements import Statement
from tests.consistency.tables import Key
from tests.consistency.workload import Copy, EndPrepared, Pause, Pipeline, PortalRead, Step, Unit, size

# psycopg logs a warning for every pipeline that ends with an error, as many pipelines here do.
logging.getLogger("psycopg").setLevel(logging.ERROR)

PATIENCE = 30.0
"""Seconds to wait for a connection or an answer before the round fails."""


class Entry(NamedTuple):
    """One operation in the journal; times are seconds since the journal began."""

    began: float
    ended: float
    session: str
    statement: Statement
    outcome: str

    def __str__(self) -> str:
        times = f"{self.began:10.4f} {self.ended:10.4f}"
        return f"{times} {self.session} {self.statement.mode:9} {self.statement.literal} → {self.outcome}"


class Journal:
    """The most recent operations of a round."""

    def __init__(self, length: int = 200_000) -> None:
        self._entries: deque[Entry] = deque(maxlen=length)
        self._zero = time.monotonic()
        self.operations = 0
        self.failures: dict[str, int] = {}

    def now(self) -> float:
        return time.monotonic() - self._zero

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)

    def entries_of(self, table: str, key: Key | None, last: int = 40) -> list[Entry]:
        """The last operations that may have touched the key, and those that ended transactions meanwhile."""
        found: deque[Entry] = deque(maxlen=last)
        for entry in self._entries:
            statement = entry.statement
            if table not in statement.table.split() and statement.table:
                continue
            if (
                not statement.table
                or key is None
                or statement.writes is None
                or key in statement.writes
                or key in statement.reads
            ):
                found.append(entry)
        return list(found)


class PreparedTransactions:
    """Transactions prepared for two-phase commit; any session may end them."""

    def __init__(self) -> None:
        self._gids: deque[str] = deque()

    def add(self, gid: str) -> None:
        self._gids.append(gid)

    def statements(self, *, commit: bool) -> Iterator[str]:
        """The statement that ends one of them; nothing if there is none."""
        if self._gids:
            yield f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{self._gids.popleft()}'"


class Session:
    """One client. A subclass implements it with a driver."""

    CONNECTION_LOST: tuple[type[BaseException], ...] = ()
    """What the driver raises when the connection is lost."""
    STATEMENT_FAILED: tuple[type[BaseException], ...] = ()
    """What the driver raises when a statement fails."""

    def __init__(self, name: str, dsn: str, journal: Journal, prepared: PreparedTransactions) -> None:
        self.name = name
        self._dsn = dsn
        self._journal = journal
        self._prepared = prepared

    def connect_to(self, dsn: str) -> None:
        """Use this DSN from the next connection on."""
        self._dsn = dsn

    async def execute(self, text: str) -> str:
        """Execute one statement by a simple query, without an entry in the journal."""
        return await self._run(Statement(text))

    async def connect(self) -> None:
        """Make sure there is a connection; try again while the server is away."""
        deadline = time.monotonic() + PATIENCE
        while not self._alive():
            try:
                await self._open()
            except self.CONNECTION_LOST:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def work(self, unit: Unit) -> None:
        """Carry out a unit; if the connection is lost, leave out the rest of it."""
        self._journal.operations += size(unit)
        try:
            await self.connect()
            for step in unit:
                await self._step(step)
        except (*self.CONNECTION_LOST, *self.STATEMENT_FAILED) as error:
            self._count(error)
            await self.close()

    async def _step(self, step: Step) -> None:
        async with asyncio.timeout(PATIENCE):
            if isinstance(step, Statement):
                await self._record(step, self._run(step))
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Pipeline):
                about = Statement(" | ".join(statement.parameterized for statement in step.statements), mode="pipeline")
                began = self._journal.now()
                outcome = await self._record(about, self._pipeline_of(step.statements))
                for statement in step.statements:
                    self._journal.add(Entry(began, self._journal.now(), self.name, statement, outcome))
            elif isinstance(step, PortalRead):
                await self._record(step.statement, self._portal_read(step.statement, step.pause))
            elif isinstance(step, Copy):
                await self._record(step.statement, self._copy(step))
            elif isinstance(step, EndPrepared):
                for text in self._prepared.statements(commit=step.commit):
                    await self._record(Statement(text), self._run(Statement(text)))

    async def _record(self, statement: Statement, answer: Any) -> str:
        began, outcome = self._journal.now(), "connection gone"
        try:
            outcome = await answer
        except self.STATEMENT_FAILED as error:
            outcome = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self._count(error)
            if not self._alive():
                raise
        finally:
            self._journal.add(Entry(began, self._journal.now(), self.name, statement, outcome))
        if outcome.startswith("PREPARE TRANSACTION"):
            self._prepared.add(statement.text.split("'")[1])
        return outcome

    def _count(self, error: BaseException) -> None:
        name = type(error).__name__
        self._journal.failures[name] = self._journal.failures.get(name, 0) + 1

    async def _open(self) -> None:
        raise NotImplementedError

    def _alive(self) -> bool:
        raise NotImplementedError

    async def _run(self, statement: Statement) -> str:
        raise NotImplementedError

    async def _pipeline_of(self, statements: tuple[Statement, ...]) -> str:
        raise NotImplementedError

    async def _portal_read(self, statement: Statement, pause: float) -> str:
        raise NotImplementedError

    async def _copy(self, copy: Copy) -> str:
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connection normally."""
        raise NotImplementedError

    async def send_and_disconnect(self, text: str) -> None:
        """Send a simple query and close the connection before its answer comes."""
        raise NotImplementedError


class PsycopgSession(Session):
    """psycopg, which uses libpq, with pipelines."""

    CONNECTION_LOST = (psycopg.OperationalError, psycopg.InterfaceError, OSError)
    STATEMENT_FAILED = (psycopg.Error,)

    _connection: psycopg.AsyncConnection | None = None

    async def _open(self) -> None:
        self._connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.AsyncRawCursor
        )

    def _alive(self) -> bool:
        return self._connection is not None and not self._connection.closed

    @property
    def connection(self) -> psycopg.AsyncConnection:
        assert self._connection is not None
        return self._connection

    async def _run(self, statement: Statement) -> str:
        return _tag(await self._execute(statement))

    async def _execute(self, statement: Statement) -> psycopg.AsyncCursor:
        if statement.mode == "simple":
            return await self.connection.execute(statement.literal.encode())
        prepare, binary = statement.mode == "prepared", statement.mode == "binary"
        text = statement.parameterized.encode()
        return await self.connection.execute(text, statement.values, prepare=prepare, binary=binary)

    async def _pipeline_of(self, statements: tuple[Statement, ...]) -> str:
        async with self.connection.pipeline() as pipeline:
            cursors = [await self._execute(statement) for statement in statements]
            await pipeline.sync()
        return "; ".join(map(_tag, cursors))

    async def _portal_read(self, statement: Statement, pause: float) -> str:
        rows = 0
        async with self.connection.cursor() as cursor:
            # Row by row: the pauses delay the server only when buffers are full, but the rows get old in any case.
            async for _ in cursor.stream(statement.parameterized.encode(), statement.values):
                rows += 1
                await asyncio.sleep(pause)
        return f"SELECT {rows}"

    async def _copy(self, copy: Copy) -> str:
        async with self.connection.cursor() as cursor:
            async with cursor.copy(copy.statement.literal.encode()) as sink:
                await sink.write(copy.row)
            return _tag(cursor)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def send_and_disconnect(self, text: str) -> None:
        connection = self.connection.pgconn
        connection.send_query(text.encode())
        connection.flush()
        connection.finish()
        self._connection = None


def _tag(cursor: psycopg.AsyncCursor) -> str:
    return cursor.statusmessage or ""


class AsyncpgSession(Session):
    """asyncpg, which implements the protocol itself, uses binary format, and reads portals in several parts."""

    CONNECTION_LOST = (
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # raised for an error that ends the session between two statements
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        OSError,
    )
    STATEMENT_FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError)

    _connection: asyncpg.Connection | None = None

    async def _open(self) -> None:
        self._connection = await asyncpg.connect(self._dsn, timeout=PATIENCE)

    def _alive(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    @property
    def connection(self) -> asyncpg.Connection:
        assert self._connection is not None
        return self._connection

    async def _run(self, statement: Statement) -> str:
        if statement.mode == "simple" or not statement.values:
            return str(await self.connection.execute(statement.literal))
        if statement.mode == "extended":
            return str(await self.connection.execute(statement.parameterized, *statement.values))
        return f"{len(await self.connection.fetch(statement.parameterized, *statement.values))} rows"

    async def _pipeline_of(self, statements: tuple[Statement, ...]) -> str:
        # asyncpg has one kind of pipeline only: a statement bound and executed many times before one Sync.
        statement = statements[0]
        await self.connection.executemany(statement.parameterized, [statement.values] * len(statements))
        return f"{statement.parameterized} {len(statements)} times"

    async def _portal_read(self, statement: Statement, pause: float) -> str:
        rows = 0
        cursor = await self.connection.cursor(statement.parameterized, *statement.values)
        while found := await cursor.fetch(2):
            rows += len(found)
            await asyncio.sleep(pause)
        return f"SELECT {rows}"

    async def _copy(self, copy: Copy) -> str:
        source = io.BytesIO(copy.row.encode())
        return str(await self.connection.copy_to_table(copy.statement.table, source=source, columns=copy.columns))

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                await connection.close(timeout=2)
            except (*self.STATEMENT_FAILED, OSError, TimeoutError):
                connection.terminate()

    async def send_and_disconnect(self, text: str) -> None:
        task = asyncio.ensure_future(self.connection.execute(text))
        await asyncio.sleep(0)
        self.connection.terminate()
        await asyncio.gather(task, return_exceptions=True)
        self._connection = None
