"""``rowtap warm``: tables read through the proxy in key order, so that Redis holds their keys before they are needed.

The proxy fills Redis when the rows pass through it. This command only reads them, in statements of no more rows than
``max_rows`` lets fill, and asks Redis how many of their keys are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console

from proxy.commands.progress import ProgressDisplay
from proxy.commands.redis_reader import RedisKeys
from proxy.commands.state_file import StateFile, TableProgress, bytes_of, text_of
from proxy.commands.table_reader import CanonicalConnection, ReadFailure, UsageError, bind_rules, select_rules
from proxy.commands.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cache.catalog.tables import BoundRule
    from proxy.commands.table_reader import ExpectedEntry, TableRows
    from proxy.config.load import Config
    from proxy.config.sections import PostgresSection

MAX_UNCHECKED = 5000
"""Rows that were read and whose keys Redis has not been asked for yet."""
MAX_MISSING = 10_000
"""Keys that Redis did not hold when it was asked, and whose rows are read once more at the end."""
FIND_ROWS = 500
"""Rows read by key at once."""


def run(
    config: Config, dsn: str | None, tables: Sequence[str], *, from_key: Sequence[str] = (), state_path: Path | None
) -> int:
    """Read, print, and return the exit status: 0 done, 1 not finished or nothing filled, 2 wrong usage, or a table that
    cannot be captured.

    ``from_key`` are the texts of the ordering columns to begin at, for a single table. ``state_path`` names a file that
    exists only while there is something left to read.
    """
    display = ProgressDisplay()
    warming: Warming | None = None
    try:
        rules = config.rules()
        selected = select_rules(rules, tables)
        if from_key and len(selected) > 1:
            raise UsageError("--from-key is for one table: name it with --table")
        state = StateFile.load(state_path)
        bound, problems = bind_rules(proxy_as_server(config), dsn, rules, selected)
        for problem in problems:
            display.print_line(f"error: {problem}")
        warming = Warming(config, dsn, state, display, [bytes_of(text) for text in from_key])
        with asyncio.Runner() as runner, display:
            runner.run(warming.run(bound))
    except ReadFailure as failure:
        display.print_line(f"error: {failure}")
        if warming is not None:
            warming.interrupted()
        return 2 if isinstance(failure, UsageError) else 1
    except KeyboardInterrupt:
        display.print_line("interrupted")
        if warming is not None:
            warming.interrupted()
        return 130
    if problems:
        return 2
    state.remove()
    return 1 if any(progress.rows and not progress.present for progress in state.tables.values()) else 0


def proxy_as_server(config: Config) -> PostgresSection:
    """The settings of PostgreSQL with the address the proxy listens on in place of the server's."""
    address = config.proxy.listen[0]
    tls = config.proxy.tls
    return config.postgres.model_copy(
        update={
            "host": address.client_host,
            "port": address.port,
            "sslmode": "require" if tls is not None and tls.required else "prefer",
            "sslrootcert": None,
        }
    )


class Warming:
    """One run over several tables."""

    def __init__(
        self, config: Config, dsn: str | None, state: StateFile, display: ProgressDisplay, begin: Sequence[bytes]
    ) -> None:
        self._config = config
        self._dsn = dsn
        self._state = state
        self._display = display
        self._begin = tuple(begin)
        self._throttle = Throttle(config.admin.listen, max(1, min(config.redis.max_backlog // 4, MAX_UNCHECKED)))
        self._label: str | None = None
        """Of the rule that is being read."""

    async def run(self, bound: dict[str, list[BoundRule]]) -> None:
        """Read the tables of ``bound``, and print a summary for each. Raises ``ReadFailure``."""
        output = Console(highlight=False)
        async with RedisKeys(self._config.redis) as keys:
            if await self._throttle.pending_changes() is None:
                self._display.print_line(
                    "note: the admin endpoint does not answer, so how far Redis is behind is not known"
                )
            for database, rules in bound.items():
                if not rules:
                    continue
                async with CanonicalConnection(proxy_as_server(self._config), self._dsn, database) as connection:
                    for bound_rule in rules:
                        table = await connection.table(bound_rule)
                        progress = self._progress(table)
                        if not progress.done:
                            self._label = table.rule.label
                            await self._warm(table, keys, progress)
                            self._label = None
                        output.out(_summary(table.rule.label, progress), highlight=False)

    def interrupted(self) -> None:
        """Print how to go on."""
        with contextlib.suppress(ReadFailure):
            self._state.save(at_once=True)
        if self._label is None:
            return
        progress = self._state.tables[self._label]
        if self._state.path is not None:
            self._display.print_line(f"run the same command again to go on: {self._state.path} says from where")
        elif progress.position:
            flags = " ".join(
                f"--from-key {json.dumps(text_of(text), ensure_ascii=False)}" for text in progress.position
            )
            self._display.print_line(f"to go on: --table {self._label} {flags}")

    def _progress(self, table: TableRows) -> TableProgress:
        progress = self._state.tables.setdefault(table.rule.label, TableProgress())
        if progress.order and progress.order != table.order:
            raise UsageError(
                f"{self._state.path}: {table.rule.label} was read by {', '.join(progress.order)} and is by "
                f"{', '.join(table.order)} now; remove the file to begin again"
            )
        progress.order = table.order
        if self._begin and len(self._begin) != len(table.order):
            raise UsageError(f"--from-key is needed once for each of {', '.join(table.order)}")
        return progress

    async def _warm(self, table: TableRows, keys: RedisKeys, progress: TableProgress) -> None:
        check = _PresenceCheck(table, keys, progress)
        begin = self._begin or progress.position
        self._display.start(table.rule.label, table.estimate)
        self._display.advance(progress.rows)
        async for entries in table.pages(begin, inclusive=bool(self._begin), limit=table.rule.max_rows):
            self._display.advance(len(entries))
            check.add(entries)
            await self._throttle.wait()
            await check.look_up(leave=MAX_UNCHECKED)
            self._state.save()
        await self._throttle.settle()
        await check.look_up(leave=0)
        if check.missing:
            await check.read_missing_again()
            await self._throttle.settle()
            await check.look_up_missing()
        progress.done = True
        self._state.save(at_once=True)


class _PresenceCheck:
    """Looks up the keys of one table's rows in Redis, some time after the rows passed through the proxy, which is a
    little behind."""

    def __init__(self, table: TableRows, keys: RedisKeys, progress: TableProgress) -> None:
        self.missing: dict[bytes, tuple[bytes, ...]] = {}
        """Redis keys that were not there, and the texts of their key columns."""
        self._table = table
        self._keys = keys
        self._progress = progress
        self._unchecked: deque[list[ExpectedEntry]] = deque()
        self._unchecked_rows = 0

    def add(self, entries: list[ExpectedEntry]) -> None:
        """These rows passed through the proxy."""
        self._unchecked.append(entries)
        self._unchecked_rows += len(entries)

    async def look_up(self, leave: int) -> None:
        """Look up the keys of the rows that were read first, until no more than ``leave`` rows are left."""
        while self._unchecked and self._unchecked_rows > leave:
            entries = self._unchecked.popleft()
            self._unchecked_rows -= len(entries)
            expected = [entry for entry in entries if entry.value is not None]
            present = await self._keys.exist([entry.key for entry in expected])
            for entry, is_present in zip(expected, present, strict=True):
                if is_present:
                    self._progress.present += 1
                elif len(self.missing) < MAX_MISSING:
                    self.missing[entry.key] = entry.key_texts
            self._progress.rows += len(expected)
            self._progress.position = entries[-1].position

    async def read_missing_again(self) -> None:
        """Read the rows of missing keys once more: a write at the same time may have refused their fill, or the proxy
        may have been further behind."""
        keys = list(self.missing.values())
        size = min(FIND_ROWS, self._table.rule.max_rows)
        for first in range(0, len(keys), size):
            await self._table.find(keys[first : first + size])

    async def look_up_missing(self) -> None:
        """Count the missing keys that are there now."""
        self._progress.present += sum(await self._keys.exist(list(self.missing)))


def _summary(label: str, progress: TableProgress) -> str:
    if not progress.rows:
        return f"{label}: no rows"
    text = f"{label}: {progress.present} of {progress.rows} keys present"
    if not progress.present:
        text += "; does --dsn lead to the proxy, and does the proxy have this configuration?"
    elif progress.present < progress.rows:
        text += "; rowtap_unfilled_rows_total and rowtap_fills_refused_total in /metrics say why not all"
    return text
