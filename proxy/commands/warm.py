"""``rowtap warm``: tables read through the proxy in key order, so that their keys are there before anybody asks.

What fills Redis is the proxy that sees the rows go by; this command only reads them, in batches that fill whole, and
looks into Redis to say how many of the keys are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from proxy.commands.progress import Meter
from proxy.commands.redis_reader import Keys
from proxy.commands.table_reader import Misuse, Reader, ReadFailure, bind, select
from proxy.config.os_errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.catalog.tables import BoundRule
    from proxy.commands.table_reader import Row, Table
    from proxy.config.load import Config
    from proxy.config.sections import PostgresSection
    from proxy.config.units import Address

WINDOW = 5000
"""Rows read whose keys have not been looked for in Redis yet."""
MAX_LATE = 10_000
"""Keys that were not there when they were looked for, and are tried once more at the end."""
FIND = 500
"""Rows asked for by key at once."""
PATIENCE = 30.0
"""Seconds without any change reaching Redis after which waiting for it ends."""
SETTLE = 5.0
"""Seconds the last changes of a table have to reach Redis while other traffic goes on."""
SAVE_INTERVAL = 1.0


@dataclass(slots=True)
class Progress:
    """How far one rule's table has been read. What the state file keeps."""

    order: tuple[str, ...] = ()
    """The columns of ``place``."""
    place: tuple[bytes, ...] = ()
    rows: int = 0
    """Rows up to ``place`` that have a key."""
    present: int = 0
    done: bool = False


@dataclass(slots=True)
class State:
    """Where each table has come to, kept in a file if there is one."""

    path: Path | None
    tables: dict[str, Progress] = field(default_factory=dict)
    saved_at: float = 0.0

    @classmethod
    def load(cls, path: Path | None) -> State:
        """From the file, if it is there. Raises ``Misuse``."""
        state = cls(path)
        if path is None or not path.exists():
            return state
        try:
            document = json.loads(path.read_bytes())
            for label, entry in document["tables"].items():
                state.tables[label] = Progress(
                    order=tuple(map(str, entry["order"])),
                    place=tuple(_bytes(text) for text in entry["place"]),
                    rows=int(entry["rows"]),
                    present=int(entry["present"]),
                    done=bool(entry["done"]),
                )
        except OSError as error:
            raise Misuse(f"{path}: cannot be read: {reason_of(error)}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Misuse(f"{path}: is no state file of rowtap warm; name another, or remove it") from None
        return state

    def save(self, *, at_once: bool = False) -> None:
        """Write the file anew, not more than once in ``SAVE_INTERVAL``. Raises ``ReadFailure``."""
        if self.path is None or (not at_once and time.monotonic() - self.saved_at < SAVE_INTERVAL):
            return
        document = {
            "tables": {
                label: {
                    "order": progress.order,
                    "place": [_text(text) for text in progress.place],
                    "rows": progress.rows,
                    "present": progress.present,
                    "done": progress.done,
                }
                for label, progress in self.tables.items()
            }
        }
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            new.write_text(json.dumps(document))
            new.replace(self.path)
        except OSError as error:
            raise ReadFailure(f"{self.path}: cannot be written: {reason_of(error)}") from None
        self.saved_at = time.monotonic()

    def finish(self) -> None:
        """Everything was read: the next run begins anew."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def run(
    config: Config, dsn: str | None, tables: Sequence[str], *, from_key: Sequence[str] = (), state_path: Path | None
) -> int:
    """Read, print, and return the exit status: 0 done, 1 not finished or nothing filled, 2 misuse.

    ``from_key`` are the texts of the ordering columns to begin at, for a single table. ``state_path`` names a file that
    is there only while there is something left to read.
    """
    meter = Meter()
    warming: Warming | None = None
    try:
        rules = config.rules()
        chosen = select(rules, tables)
        if from_key and len(chosen) > 1:
            raise Misuse("--from-key is for one table: name it with --table")
        state = State.load(state_path)
        bound, problems = bind(through(config), dsn, rules, chosen)
        for problem in problems:
            meter.say(f"error: {problem}")
        warming = Warming(config, dsn, state, meter, [_bytes(text) for text in from_key])
        with asyncio.Runner() as runner, meter:
            runner.run(warming.run(bound))
    except ReadFailure as failure:
        meter.say(f"error: {failure}")
        if warming is not None:
            warming.interrupted()
        return 2 if isinstance(failure, Misuse) else 1
    except KeyboardInterrupt:
        meter.say("interrupted")
        if warming is not None:
            warming.interrupted()
        return 130
    if problems:
        return 2
    state.finish()
    return 1 if any(one.rows and not one.present for one in state.tables.values()) else 0


def through(config: Config) -> PostgresSection:
    """Where the proxy itself is reached, in place of PostgreSQL."""
    address = config.proxy.listen[0]
    tls = config.proxy.tls
    return config.postgres.model_copy(
        update={
            "host": _reachable(address),
            "port": address.port,
            "sslmode": "require" if tls is not None and tls.required else "prefer",
            "sslrootcert": None,
        }
    )


def _reachable(address: Address) -> str:
    """The host a client on this machine gives; the directory for a Unix socket."""
    if address.path is not None:
        return str(Path(address.path).parent)
    return {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - no bind


class Warming:
    """One run over several tables."""

    def __init__(self, config: Config, dsn: str | None, state: State, meter: Meter, begin: Sequence[bytes]) -> None:
        self._config = config
        self._dsn = dsn
        self._state = state
        self._meter = meter
        self._begin = tuple(begin)
        self._pace = Pace(config.admin.listen, max(1, min(config.redis.max_backlog // 4, WINDOW)))
        self._label: str | None = None

    async def run(self, bound: dict[str, list[BoundRule]]) -> None:
        """Read the tables of ``bound``, and say what became of each. Raises ``ReadFailure``."""
        output = Console(highlight=False)
        async with Keys(self._config.redis) as keys:
            if await self._pace.status() is None:
                self._meter.say("note: the admin endpoint does not answer, so nothing tells how far Redis is behind")
            for database, rules in bound.items():
                if not rules:
                    continue
                async with Reader(through(self._config), self._dsn, database) as reader:
                    for one in rules:
                        table = await reader.table(one)
                        progress = self._progress(table)
                        if not progress.done:
                            self._label = one.rule.label
                            await self._warm(table, keys, progress)
                            self._label = None
                        output.out(_summary(one.rule.label, progress), highlight=False)

    def interrupted(self) -> None:
        """Say how to go on."""
        with contextlib.suppress(ReadFailure):
            self._state.save(at_once=True)
        if self._label is None:
            return
        progress = self._state.tables[self._label]
        if self._state.path is not None:
            self._meter.say(f"run the same command again to go on: {self._state.path} knows where")
        elif progress.place:
            words = " ".join(f"--from-key {json.dumps(_text(text), ensure_ascii=False)}" for text in progress.place)
            self._meter.say(f"to go on: --table {self._label} {words}")

    def _progress(self, table: Table) -> Progress:
        progress = self._state.tables.setdefault(table.rule.label, Progress())
        if progress.order and progress.order != table.order:
            raise Misuse(
                f"{self._state.path}: {table.rule.label} was read by {', '.join(progress.order)} and is by "
                f"{', '.join(table.order)} now; remove the file to begin anew"
            )
        progress.order = table.order
        if self._begin and len(self._begin) != len(table.order):
            raise Misuse(f"--from-key is needed once for each of {', '.join(table.order)}")
        return progress

    async def _warm(self, table: Table, keys: Keys, progress: Progress) -> None:
        reading = _Reading(table, keys, progress)
        begin = self._begin or progress.place
        self._meter.begin(table.rule.label, table.estimate)
        self._meter.advance(progress.rows)
        async for rows in table.pages(begin, inclusive=bool(self._begin), limit=table.rule.max_rows):
            self._meter.advance(len(rows))
            reading.add(rows)
            await self._pace.wait()
            await reading.look(leave=WINDOW)
            self._state.save()
        await self._pace.settle()
        await reading.look(leave=0)
        if reading.late:
            await reading.read_again()
            await self._pace.settle()
            await reading.look_for_late()
        progress.done = True
        self._state.save(at_once=True)


class _Reading:
    """The rows of one table that were read, until their keys were looked for."""

    def __init__(self, table: Table, keys: Keys, progress: Progress) -> None:
        self.late: dict[bytes, tuple[bytes, ...]] = {}
        """Redis keys that were not there, and the texts of their key columns."""
        self._table = table
        self._keys = keys
        self._progress = progress
        self._waiting: deque[list[Row]] = deque()
        self._number = 0

    def add(self, rows: list[Row]) -> None:
        """These rows went through the proxy."""
        self._waiting.append(rows)
        self._number += len(rows)

    async def look(self, leave: int) -> None:
        """Look for the keys of the rows read first, until no more than ``leave`` rows wait."""
        while self._waiting and self._number > leave:
            rows = self._waiting.popleft()
            self._number -= len(rows)
            wanted = [row for row in rows if row.value is not None]
            for row, found in zip(wanted, await self._keys.exist([row.key for row in wanted]), strict=True):
                if found:
                    self._progress.present += 1
                elif len(self.late) < MAX_LATE:
                    self.late[row.key] = row.parts
            self._progress.rows += len(wanted)
            self._progress.place = rows[-1].place

    async def read_again(self) -> None:
        """What was refused because of a write at the same time, or came too late, may fill now."""
        parts = list(self.late.values())
        size = min(FIND, self._table.rule.max_rows)
        for first in range(0, len(parts), size):
            await self._table.find(parts[first : first + size])

    async def look_for_late(self) -> None:
        """Count those that are there by now."""
        self._progress.present += sum(await self._keys.exist(list(self.late)))


class Pace:
    """Keeps reading from running ahead of Redis, by what the admin endpoint says of pending changes."""

    def __init__(self, admin: Address | None, limit: int) -> None:
        self._admin = admin
        self._limit = limit

    async def wait(self) -> None:
        """Return when there are few pending changes. Raises ``ReadFailure`` when none of them get done."""
        last, since = -1, time.monotonic()
        while (status := await self.status()) is not None and (pending := status["pending_changes"]) > self._limit:
            if pending != last:
                last, since = pending, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise ReadFailure(f"{pending} changes are pending and none has reached Redis for {PATIENCE:g} s")
            await asyncio.sleep(0.02)

    async def settle(self) -> None:
        """Return when what was read so far has reached Redis, as far as can be told."""
        deadline = time.monotonic() + SETTLE
        zeros = 0
        while zeros < 2 and time.monotonic() < deadline:
            status = await self.status()
            if status is None:
                await asyncio.sleep(1.0)
                return
            zeros = zeros + 1 if status["pending_changes"] == 0 else 0
            await asyncio.sleep(0.02)

    async def status(self) -> dict[str, Any] | None:
        """What ``/status`` says; None when it says nothing."""
        if self._admin is None:
            return None
        try:
            async with asyncio.timeout(5):
                answer = await _get(self._admin, "/status")
            found = json.loads(answer)
        except (OSError, TimeoutError, ValueError):
            return None
        return found if isinstance(found, dict) and isinstance(found.get("pending_changes"), int) else None


async def _get(address: Address, path: str) -> bytes:
    """The content of an HTTP answer. Raises OSError, and ValueError for what is no answer."""
    if address.path is not None:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        reader, writer = await asyncio.open_connection(_reachable(address), address.port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head, _, content = (await reader.read(-1)).partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] != [b"200"]:
            raise ValueError("no answer")
        return content
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _summary(label: str, progress: Progress) -> str:
    text = f"{label}: {progress.present} of {progress.rows} keys present"
    if not progress.rows:
        return f"{label}: no rows"
    if not progress.present:
        text += "; does --dsn lead to the proxy, and does the proxy have this configuration?"
    elif progress.present < progress.rows:
        text += "; rowtap_unfilled_rows_total and rowtap_fills_refused_total in /metrics say why not all"
    return text


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("not text")
    return text.encode(errors="surrogateescape")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
