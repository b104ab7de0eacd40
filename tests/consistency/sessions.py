"""Sessions that carry out a workload's units, with psycopg or asyncpg, and a journal of what they did.

A statement may fail in any way PostgreSQL has for it. A connection that is gone is made again, for as long as it takes.
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

from tests.consistency.statements import Run
from tests.consistency.tables import Key
from tests.consistency.workload import Copy, Finish, Pause, Portions, Step, Together, Unit, size

# It warns of every pipeline that ends with an error, and many of ours shall.
logging.getLogger("psycopg").setLevel(logging.ERROR)

PATIENCE = 30.0
"""Seconds a session may take to get a connection, or an answer, before the round has failed."""


class Entry(NamedTuple):
    """One operation as the journal has it; times are seconds since the journal began."""

    began: float
    ended: float
    session: str
    run: Run
    outcome: str

    def __str__(self) -> str:
        return (
            f"{self.began:10.4f} {self.ended:10.4f} {self.session} {self.run.how:9} {self.run.literal} → {self.outcome}"
        )


class Journal:
    """The latest operations of a round."""

    def __init__(self, length: int = 200_000) -> None:
        self._entries: deque[Entry] = deque(maxlen=length)
        self._zero = time.monotonic()
        self.operations = 0
        self.failures: dict[str, int] = {}

    def now(self) -> float:
        return time.monotonic() - self._zero

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)

    def about(self, table: str, key: Key | None, last: int = 40) -> list[Entry]:
        """The last operations that may have touched the key, and all that ended transactions meanwhile."""
        found: deque[Entry] = deque(maxlen=last)
        for entry in self._entries:
            run = entry.run
            if table not in run.table.split() and run.table:
                continue
            if not run.table or key is None or run.writes is None or key in run.writes or key in run.reads:
                found.append(entry)
        return list(found)


class Prepared:
    """Transactions prepared for two-phase commit that anybody may end."""

    def __init__(self) -> None:
        self._gids: deque[str] = deque()

    def add(self, gid: str) -> None:
        self._gids.append(gid)

    def statements(self, *, commit: bool) -> Iterator[str]:
        """What ends one of them; nothing if there is none."""
        if self._gids:
            yield f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{self._gids.popleft()}'"


class Session:
    """One client. A subclass knows its driver."""

    GONE: tuple[type[BaseException], ...] = ()
    """What a driver raises for a connection that is no more."""
    FAILED: tuple[type[BaseException], ...] = ()
    """What it raises for a statement that failed."""

    def __init__(self, name: str, dsn: str, journal: Journal, prepared: Prepared) -> None:
        self.name = name
        self._dsn = dsn
        self._journal = journal
        self._prepared = prepared

    def go_to(self, dsn: str) -> None:
        """Connect there from the next time on."""
        self._dsn = dsn

    async def execute(self, text: str) -> str:
        """One statement in a Query, past the journal."""
        return await self._run(Run(text))

    async def connect(self) -> None:
        """Have a connection, however long the server is away."""
        deadline = time.monotonic() + PATIENCE
        while not self._alive():
            try:
                await self._open()
            except self.GONE:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def work(self, unit: Unit) -> None:
        """Carry out a unit; if the connection goes away meanwhile, leave the rest of it."""
        self._journal.operations += size(unit)
        try:
            await self.connect()
            for step in unit:
                await self._step(step)
        except (*self.GONE, *self.FAILED) as error:
            self._count(error)
            await self.close()

    async def _step(self, step: Step) -> None:
        async with asyncio.timeout(PATIENCE):
            if isinstance(step, Run):
                await self._record(step, self._run(step))
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Together):
                about = Run(" | ".join(run.parameterized for run in step.runs), how="pipeline")
                began = self._journal.now()
                outcome = await self._record(about, self._together(step.runs))
                for run in step.runs:
                    self._journal.add(Entry(began, self._journal.now(), self.name, run, outcome))
            elif isinstance(step, Portions):
                await self._record(step.run, self._portions(step.run, step.pause))
            elif isinstance(step, Copy):
                await self._record(step.run, self._copy(step))
            elif isinstance(step, Finish):
                for text in self._prepared.statements(commit=step.commit):
                    await self._record(Run(text), self._run(Run(text)))

    async def _record(self, run: Run, answer: Any) -> str:
        began, outcome = self._journal.now(), "connection gone"
        try:
            outcome = await answer
        except self.FAILED as error:
            outcome = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self._count(error)
            if not self._alive():
                raise
        finally:
            self._journal.add(Entry(began, self._journal.now(), self.name, run, outcome))
        if outcome.startswith("PREPARE TRANSACTION"):
            self._prepared.add(run.text.split("'")[1])
        return outcome

    def _count(self, error: BaseException) -> None:
        name = type(error).__name__
        self._journal.failures[name] = self._journal.failures.get(name, 0) + 1

    async def _open(self) -> None:
        raise NotImplementedError

    def _alive(self) -> bool:
        raise NotImplementedError

    async def _run(self, run: Run) -> str:
        raise NotImplementedError

    async def _together(self, runs: tuple[Run, ...]) -> str:
        raise NotImplementedError

    async def _portions(self, run: Run, pause: float) -> str:
        raise NotImplementedError

    async def _copy(self, copy: Copy) -> str:
        raise NotImplementedError

    async def close(self) -> None:
        """End the connection in the ordinary way."""
        raise NotImplementedError

    async def abandon(self, text: str) -> None:
        """Send this Query and be gone before its answer."""
        raise NotImplementedError


class PsycopgSession(Session):
    """psycopg: libpq underneath, with pipelines."""

    GONE = (psycopg.OperationalError, psycopg.InterfaceError, OSError)
    FAILED = (psycopg.Error,)

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

    async def _run(self, run: Run) -> str:
        return _tag(await self._execute(run))

    async def _execute(self, run: Run) -> psycopg.AsyncCursor:
        if run.how == "simple":
            return await self.connection.execute(run.literal.encode())
        prepare, binary = run.how == "prepared", run.how == "binary"
        text = run.parameterized.encode()
        return await self.connection.execute(text, run.values, prepare=prepare, binary=binary)

    async def _together(self, runs: tuple[Run, ...]) -> str:
        async with self.connection.pipeline() as pipeline:
            cursors = [await self._execute(run) for run in runs]
            await pipeline.sync()
        return "; ".join(map(_tag, cursors))

    async def _portions(self, run: Run, pause: float) -> str:
        rows = 0
        async with self.connection.cursor() as cursor:
            # One row at a time: the pauses reach the server by way of full buffers only, but the rows' age is the same.
            async for _ in cursor.stream(run.parameterized.encode(), run.values):
                rows += 1
                await asyncio.sleep(pause)
        return f"SELECT {rows}"

    async def _copy(self, copy: Copy) -> str:
        async with self.connection.cursor() as cursor:
            async with cursor.copy(copy.run.literal.encode()) as sink:
                await sink.write(copy.row)
            return _tag(cursor)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def abandon(self, text: str) -> None:
        connection = self.connection.pgconn
        connection.send_query(text.encode())
        connection.flush()
        connection.finish()
        self._connection = None


def _tag(cursor: psycopg.AsyncCursor) -> str:
    return cursor.statusmessage or ""


class AsyncpgSession(Session):
    """asyncpg: its own protocol implementation, binary throughout, with portals read in portions."""

    GONE = (
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # what it makes of an error that ends the session between two statements
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        OSError,
    )
    FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError)

    _connection: asyncpg.Connection | None = None

    async def _open(self) -> None:
        self._connection = await asyncpg.connect(self._dsn, timeout=PATIENCE)

    def _alive(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    @property
    def connection(self) -> asyncpg.Connection:
        assert self._connection is not None
        return self._connection

    async def _run(self, run: Run) -> str:
        if run.how == "simple" or not run.values:
            return str(await self.connection.execute(run.literal))
        if run.how == "extended":
            return str(await self.connection.execute(run.parameterized, *run.values))
        return f"{len(await self.connection.fetch(run.parameterized, *run.values))} rows"

    async def _together(self, runs: tuple[Run, ...]) -> str:
        # It has no pipelines but this one: a statement bound and executed many times before one Sync.
        run = runs[0]
        await self.connection.executemany(run.parameterized, [run.values] * len(runs))
        return f"{run.parameterized} {len(runs)} times"

    async def _portions(self, run: Run, pause: float) -> str:
        rows = 0
        cursor = await self.connection.cursor(run.parameterized, *run.values)
        while found := await cursor.fetch(2):
            rows += len(found)
            await asyncio.sleep(pause)
        return f"SELECT {rows}"

    async def _copy(self, copy: Copy) -> str:
        source = io.BytesIO(copy.row.encode())
        return str(await self.connection.copy_to_table(copy.run.table, source=source, columns=copy.columns))

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                await connection.close(timeout=2)
            except (*self.FAILED, OSError, TimeoutError):
                connection.terminate()

    async def abandon(self, text: str) -> None:
        task = asyncio.ensure_future(self.connection.execute(text))
        await asyncio.sleep(0)
        self.connection.terminate()
        await asyncio.gather(task, return_exceptions=True)
        self._connection = None
