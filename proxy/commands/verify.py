"""``rowtap verify``: Redis compared with PostgreSQL, key by key.

Every row is read in key order and its key looked up; then every key in Redis that has the form of a rule's is looked up
in the table. Traffic may go on meanwhile, and a row and its key cannot be read at the same instant, so one difference
proves nothing: a key is stale when several checks, some time apart, find the same wrong value in Redis.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cache.catalog.query import typed_template
from proxy.commands.progress import ProgressDisplay
from proxy.commands.redis_reader import RedisKeys, WrongType
from proxy.commands.table_reader import CanonicalConnection, ReadFailure, bind_rules, select_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.catalog.tables import BoundRule
    from cache.changes import Value
    from cache.keys import KeyTemplate
    from cache.rules import TableRule
    from proxy.commands.table_reader import ExpectedEntry, TableRows
    from proxy.config.load import Config

CHECKS = 3
"""How many checks in succession must find the same wrong value in Redis."""
MAX_CHECKS = 12
"""After so many checks a key that differs each time, and each time in another way, is not checked again."""
BATCH = 500
"""Keys read at once, and keys that wait for their next check."""
MAX_REMEMBERED = 100_000
"""Keys whose checks are over and that are remembered, because SCAN may return a key twice."""
MAX_LISTED = 1000
"""Stale keys listed for each table; the others are counted."""


@dataclass(slots=True)
class TableResult:
    """The numbers of one rule. Its fields are those of the JSON report."""

    table: str
    equal: int = 0
    absent: int = 0
    """Rows whose key Redis does not hold. Not wrong: the next read fills it."""
    keyless: int = 0
    """Rows that have no key, since their value is NULL."""
    stale: int = 0
    orphans: int = 0
    """Those of the stale keys that have no row."""
    changing: int = 0
    """Keys that had changed at every check."""
    shared: int = 0
    """Keys without a row that may be another rule's."""
    stale_keys: list[dict[str, str]] = field(default_factory=list)
    """The first ``MAX_LISTED`` of them, and what is wrong."""

    @property
    def rows(self) -> int:
        """Rows compared."""
        return self.equal + self.absent + self.keyless + self.stale - self.orphans + self.changing


@dataclass(slots=True)
class _Mismatch:
    """A key that differed from its row at its last check."""

    key_texts: tuple[bytes, ...]
    held: Value | WrongType
    """What Redis held."""
    checked_at: float
    same: int = 1
    """Checks in succession that found the same in Redis."""
    checks: int = 1


def run(config: Config, dsn: str | None, tables: Sequence[str], *, as_json: bool = False, settle: float = 0.5) -> int:
    """Compare, print, and return the exit status: 0 nothing is stale, 1 something is, 2 not everything could be
    compared and nothing is stale in the rest.

    ``settle`` is the time between two checks of a key, in seconds.
    """
    display = ProgressDisplay()
    results: list[TableResult] = []
    problems: list[str] = []
    try:
        rules = config.rules()
        bound, problems = bind_rules(config.postgres, dsn, rules, select_rules(rules, tables))
        for problem in problems:
            display.print_line(f"error: {problem}")
        with asyncio.Runner() as runner, display:
            problems += runner.run(_verify_all(config, dsn, bound, settle, display, results))
    except ReadFailure as failure:
        display.print_line(f"error: {failure}")
        problems.append(str(failure))
    except KeyboardInterrupt:
        display.print_line("error: interrupted")
        return 130
    finally:
        if as_json:
            _print_json(results, problems)
        else:
            _print(results)
    if any(result.stale for result in results):
        return 1
    return 2 if problems else 0


async def _verify_all(
    config: Config,
    dsn: str | None,
    bound: dict[str, list[BoundRule]],
    settle: float,
    display: ProgressDisplay,
    results: list[TableResult],
) -> list[str]:
    """Append to ``results`` one for each rule. Returns a line for each table that cannot be compared, printed already.
    Raises ``ReadFailure``."""
    problems: list[str] = []
    async with RedisKeys(config.redis) as keys:
        for database, rules in bound.items():
            if not rules:
                continue
            async with CanonicalConnection(config.postgres, dsn, database) as connection:
                for bound_rule in rules:
                    try:
                        table = await connection.table(bound_rule)
                    except ReadFailure as failure:
                        display.print_line(f"error: {failure}")
                        problems.append(str(failure))
                        continue
                    others = _templates_of_other_databases(config.rules(), bound, database)
                    results.append(TableResult(table.rule.label))
                    await _Comparison(table, keys, others, results[-1], settle, display).run()
    return problems


def _templates_of_other_databases(
    rules: Sequence[TableRule], bound: dict[str, list[BoundRule]], database: str
) -> list[KeyTemplate]:
    """The key templates of other databases' rules, typed where their catalog is known. Within one database no two
    captured rules can make the same key."""
    bound_rules = [bound_rule for of_database in bound.values() for bound_rule in of_database]
    typed = {bound_rule.rule: typed_template(bound_rule) for bound_rule in bound_rules}
    return [typed.get(rule, rule.template) for rule in rules if rule.database != database]


class _Comparison:
    """Compares one rule's rows and keys."""

    def __init__(
        self,
        table: TableRows,
        keys: RedisKeys,
        others: Sequence[KeyTemplate],
        result: TableResult,
        settle: float,
        display: ProgressDisplay,
    ) -> None:
        self._table = table
        self._keys = keys
        self._others = others
        self._result = result
        self._settle = settle
        self._display = display
        self._mismatches: dict[bytes, _Mismatch] = {}
        """Keys that wait for their next check."""
        self._finished: set[bytes] = set()
        """Keys whose checks are over: stale, or changing."""

    async def run(self) -> None:
        label = self._result.table
        self._display.start(label, self._table.estimate)
        async for entries in self._table.pages():
            await self._compare(entries)
            self._display.advance(len(entries))
            await self._check_mismatches(at_least=BATCH)
        await self._check_mismatches()
        self._display.start(f"{label}: keys without a row", None)
        async for keys in self._keys.scan(self._table.template.pattern):
            owned = [key for key in dict.fromkeys(keys) if self._table.template.owns(key)]
            for first in range(0, len(owned), BATCH):
                await self._find_orphans(owned[first : first + BATCH])
            self._display.advance(len(keys))
            await self._check_mismatches(at_least=BATCH)
        await self._check_mismatches()

    async def _compare(self, entries: Sequence[ExpectedEntry]) -> None:
        """The first check of these rows' keys."""
        held = await self._keys.get([entry.key for entry in entries], self._table.rule.format)
        now = time.monotonic()
        for entry, value in zip(entries, held, strict=True):
            if value is None or value == entry.value:
                self._count_match(entry, value)
            else:
                self._mismatches[entry.key] = _Mismatch(entry.key_texts, value, now)

    def _count_match(self, entry: ExpectedEntry, held: Value | WrongType | None) -> None:
        """Redis holds what it should hold for the row, or nothing."""
        if entry.value is None:
            self._result.keyless += 1
        elif held is None:
            self._result.absent += 1
        else:
            self._result.equal += 1

    async def _find_orphans(self, keys: Sequence[bytes]) -> None:
        """The first check of those of ``keys`` that have no row; the others were compared with their rows before."""
        texts = {key: parts for key in keys if (parts := self._table.template.parts(key)) is not None}
        rows = await self._table.find(list(texts.values()))
        orphans = [key for key in texts if key not in rows and key not in self._finished]
        if not orphans:
            return
        now = time.monotonic()
        for key, held in zip(orphans, await self._keys.get(orphans, self._table.rule.format), strict=True):
            if held is None:
                continue
            if any(template.owns(key) for template in self._others):
                self._result.shared += 1
            else:
                self._mismatches[key] = _Mismatch(texts[key], held, now)

    async def _check_mismatches(self, at_least: int = 1) -> None:
        """While there are so many mismatches, check all of them, ``settle`` seconds after their last check."""
        while len(self._mismatches) >= at_least:
            newest = max(mismatch.checked_at for mismatch in self._mismatches.values())
            await asyncio.sleep(max(0.0, newest + self._settle - time.monotonic()))
            waiting = list(self._mismatches)
            for first in range(0, len(waiting), BATCH):
                await self._check(waiting[first : first + BATCH])

    async def _check(self, keys: list[bytes]) -> None:
        """Read Redis, PostgreSQL, and Redis again: a key counts as the same only if it did not change in between."""
        before = await self._keys.get(keys, self._table.rule.format)
        rows = await self._table.find([self._mismatches[key].key_texts for key in keys])
        after = await self._keys.get(keys, self._table.rule.format)
        now = time.monotonic()
        for key, earlier, later in zip(keys, before, after, strict=True):
            mismatch, entry = self._mismatches[key], rows.get(key)
            expected = None if entry is None else entry.value
            if later is None or later == expected:
                # Without a row there is nothing to count: row and key are both gone.
                if entry is not None:
                    self._count_match(entry, later)
                del self._mismatches[key]
                continue
            mismatch.checks += 1
            mismatch.same = mismatch.same + 1 if earlier == later == mismatch.held else 1
            mismatch.held, mismatch.checked_at = later, now
            if mismatch.same >= CHECKS:
                self._finish(key)
                self._count_stale(key, later, entry)
            elif mismatch.checks >= MAX_CHECKS:
                self._finish(key)
                self._result.changing += 1

    def _finish(self, key: bytes) -> None:
        """No further check of this key."""
        del self._mismatches[key]
        if len(self._finished) >= MAX_REMEMBERED:
            self._finished.clear()
        self._finished.add(key)

    def _count_stale(self, key: bytes, held: Value | WrongType, entry: ExpectedEntry | None) -> None:
        result = self._result
        result.stale += 1
        if entry is None:
            result.orphans += 1
            reason = "there is no such row"
        elif held is WrongType.WRONG_TYPE:
            reason = f"Redis holds {held.value} than format {self._table.rule.format.value} has"
        elif entry.value is None:
            reason = "the row has no value"
        else:
            reason = "differs from the row"
        if len(result.stale_keys) < MAX_LISTED:
            result.stale_keys.append({"key": key.decode(errors="backslashreplace"), "reason": reason})


_NUMBERS = ("rows", "equal", "absent", "stale")


def _print(results: Sequence[TableResult]) -> None:
    console = Console(highlight=False)
    for result in results:
        for entry in result.stale_keys:
            console.out(f"stale: {result.table}: {entry['key']}: {entry['reason']}", highlight=False)
        if result.stale > len(result.stale_keys):
            console.out(f"stale: {result.table}: and {result.stale - len(result.stale_keys):,} more", highlight=False)
    if console.is_terminal and results:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("table")
        for name in _NUMBERS:
            table.add_column(name, justify="right")
        for result in results:
            style = "bold red" if result.stale else "green"
            numbers = [f"{getattr(result, name):,}" for name in _NUMBERS]
            table.add_row(Text(result.table), *numbers[:-1], Text(numbers[-1], style=style))
        console.print(table)
    else:
        for result in results:
            listed = ", ".join(f"{getattr(result, name)} {name}" for name in _NUMBERS)
            console.out(f"{result.table}: {listed}", highlight=False)
    for result in results:
        for line in _remarks(result):
            console.out(f"note: {result.table}: {line}", highlight=False)


def _remarks(result: TableResult) -> list[str]:
    remarks = []
    if result.orphans:
        remarks.append(f"{result.orphans:,} of the stale keys have no row")
    if result.keyless:
        remarks.append(f"{result.keyless:,} rows have no key, since their value is NULL")
    if result.changing:
        remarks.append(f"{result.changing:,} keys had changed at every check, so that they could not be compared")
    if result.shared:
        remarks.append(f"{result.shared:,} keys without a row may be another [[table]]'s and are not counted as stale")
    return remarks


def _print_json(results: Sequence[TableResult], problems: Sequence[str]) -> None:
    document: dict[str, object] = {
        "tables": [{"rows": result.rows} | asdict(result) for result in results],
        "problems": list(problems),
    }
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
