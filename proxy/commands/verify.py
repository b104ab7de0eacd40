"""``rowtap verify``: Redis compared with PostgreSQL, key by key.

Every row is read in key order and its key looked up; then every key that has the form of a rule's is looked up in the
table. Both sides are read one after the other while traffic may run, so that a difference means nothing by itself: a
key is stale when several looks, some time apart, find the same thing in Redis and something else in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from cache.catalog.query import typed_template
from proxy.commands.progress import Meter
from proxy.commands.redis_reader import Foreign, Keys
from proxy.commands.table_reader import Reader, ReadFailure, bind, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.catalog.tables import BoundRule
    from cache.changes import Value
    from cache.keys import KeyTemplate
    from cache.rules import TableRule
    from proxy.commands.table_reader import Row, Table
    from proxy.config.load import Config

LOOKS = 3
"""How often in succession Redis must be found to hold the same wrong value."""
MAX_LOOKS = 12
"""A key that differs every time, and every time in another way, is given up after so many."""
BATCH = 500
"""Keys asked for at once, and keys that wait for another look."""
MAX_JUDGED = 100_000
"""Keys remembered because SCAN may show a key twice."""
MAX_NAMED = 1000
"""Stale keys named for each table; the others are counted."""


@dataclass(slots=True)
class Tally:
    """What was found of one rule."""

    table: str
    equal: int = 0
    absent: int = 0
    """Rows whose key Redis does not hold. Not wrong: the next read fills it."""
    keyless: int = 0
    """Rows that have no key, since their value is NULL."""
    stale: int = 0
    orphans: int = 0
    """Those among the stale keys that have no row."""
    changing: int = 0
    """Keys that changed at every look."""
    shared: int = 0
    """Keys without a row that may be another rule's."""
    stale_keys: list[dict[str, str]] = field(default_factory=list)
    """The first of them, and what is wrong."""

    @property
    def rows(self) -> int:
        """Rows compared."""
        return self.equal + self.absent + self.keyless + self.stale - self.orphans + self.changing


@dataclass(slots=True)
class _Suspect:
    """A key that differed when it was last looked at."""

    parts: tuple[bytes, ...]
    held: Value | Foreign
    looked_at: float
    same: int = 1
    """Looks that found the same in Redis."""
    looks: int = 1


def run(config: Config, dsn: str | None, tables: Sequence[str], *, as_json: bool = False, settle: float = 0.5) -> int:
    """Compare, print, and return the exit status: 0 nothing is stale, 1 something is, 2 not everything could be
    compared and nothing was found stale in the rest.

    ``settle`` is the time between two looks at a key, in seconds.
    """
    meter = Meter()
    tallies: list[Tally] = []
    problems: list[str] = []
    try:
        rules = config.rules()
        chosen = select(rules, tables)
        bound, problems = bind(config.postgres, dsn, rules, chosen)
        for problem in problems:
            meter.say(f"error: {problem}")
        with asyncio.Runner() as runner, meter:
            problems += runner.run(_verify_all(config, dsn, bound, settle, meter, tallies))
    except ReadFailure as failure:
        meter.say(f"error: {failure}")
        problems.append(str(failure))
    except KeyboardInterrupt:
        meter.say("error: interrupted")
        return 130
    finally:
        if as_json:
            _print_json(tallies, problems)
        else:
            _print(tallies)
    if any(tally.stale for tally in tallies):
        return 1
    return 2 if problems else 0


async def _verify_all(
    config: Config,
    dsn: str | None,
    bound: dict[str, list[BoundRule]],
    settle: float,
    meter: Meter,
    tallies: list[Tally],
) -> list[str]:
    """Fill ``tallies``; what went wrong with single tables, already said."""
    problems: list[str] = []
    async with Keys(config.redis) as keys:
        for database, rules in bound.items():
            if not rules:
                continue
            async with Reader(config.postgres, dsn, database) as reader:
                for one in rules:
                    try:
                        table = await reader.table(one)
                    except ReadFailure as failure:
                        meter.say(f"error: {failure}")
                        problems.append(str(failure))
                        continue
                    others = _templates_elsewhere(config.rules(), bound, database)
                    tallies.append(Tally(one.rule.label))
                    await _Comparison(table, keys, others, tallies[-1], settle, meter).run()
    return problems


def _templates_elsewhere(
    rules: Sequence[TableRule], bound: dict[str, list[BoundRule]], database: str
) -> list[KeyTemplate]:
    """The key templates of other databases' rules, typed where their catalog is known. Within one database no two
    captured rules can make the same key."""
    typed = {one.rule: typed_template(one) for found in bound.values() for one in found}
    return [typed.get(rule, rule.template) for rule in rules if rule.database != database]


class _Comparison:
    """One rule's rows and keys."""

    def __init__(
        self, table: Table, keys: Keys, others: Sequence[KeyTemplate], tally: Tally, settle: float, meter: Meter
    ) -> None:
        self._table = table
        self._keys = keys
        self._others = others
        self._tally = tally
        self._settle = settle
        self._meter = meter
        self._suspects: dict[bytes, _Suspect] = {}
        self._judged: set[bytes] = set()
        """Keys that need no further look."""

    async def run(self) -> None:
        label = self._tally.table
        self._meter.begin(label, self._table.estimate)
        async for rows in self._table.pages():
            await self._compare(rows)
            self._meter.advance(len(rows))
            await self._look_again(at_least=BATCH)
        await self._look_again()
        self._meter.begin(f"{label}: keys without a row", None)
        async for keys in self._keys.scan(self._table.template.pattern):
            owned = [key for key in dict.fromkeys(keys) if self._table.template.owns(key)]
            for first in range(0, len(owned), BATCH):
                await self._look_for_rows(owned[first : first + BATCH])
            self._meter.advance(len(keys))
            await self._look_again(at_least=BATCH)
        await self._look_again()

    async def _compare(self, rows: Sequence[Row]) -> None:
        held = await self._keys.get([row.key for row in rows], self._table.rule.format)
        now = time.monotonic()
        for row, value in zip(rows, held, strict=True):
            if value is None or value == row.value:
                self._count(row, value)
            else:
                self._suspects[row.key] = _Suspect(row.parts, value, now)

    def _count(self, row: Row, held: Value | Foreign | None) -> None:
        if row.value is None:
            self._tally.keyless += 1
        elif held is None:
            self._tally.absent += 1
        else:
            self._tally.equal += 1

    async def _look_for_rows(self, keys: Sequence[bytes]) -> None:
        """Find the keys that have no row; those that have one were compared already."""
        parts = {key: found for key in keys if (found := self._table.template.parts(key)) is not None}
        rows = await self._table.find(list(parts.values()))
        lonely = [key for key in parts if key not in rows and key not in self._judged]
        if not lonely:
            return
        now = time.monotonic()
        for key, held in zip(lonely, await self._keys.get(lonely, self._table.rule.format), strict=True):
            if held is None:
                continue
            if any(template.owns(key) for template in self._others):
                self._tally.shared += 1
            else:
                self._suspects[key] = _Suspect(parts[key], held, now)

    async def _look_again(self, at_least: int = 1) -> None:
        """Once enough keys differ, look at them until it is clear what they are."""
        while len(self._suspects) >= at_least:
            newest = max(suspect.looked_at for suspect in self._suspects.values())
            await asyncio.sleep(max(0.0, newest + self._settle - time.monotonic()))
            waiting = list(self._suspects)
            for first in range(0, len(waiting), BATCH):
                await self._look(waiting[first : first + BATCH])

    async def _look(self, keys: list[bytes]) -> None:
        before = await self._keys.get(keys, self._table.rule.format)
        rows = await self._table.find([self._suspects[key].parts for key in keys])
        after = await self._keys.get(keys, self._table.rule.format)
        now = time.monotonic()
        for key, earlier, later in zip(keys, before, after, strict=True):
            suspect, row = self._suspects[key], rows.get(key)
            expected = None if row is None else row.value
            if later is None or later == expected:
                # A row and its key may both be gone by now: then there is nothing to count.
                if row is not None:
                    self._count(row, later)
                del self._suspects[key]
                continue
            suspect.looks += 1
            suspect.same = suspect.same + 1 if earlier == later == suspect.held else 1
            suspect.held, suspect.looked_at = later, now
            if suspect.same >= LOOKS:
                self._condemn(key, later, row)
            elif suspect.looks >= MAX_LOOKS:
                self._tally.changing += 1
                self._judge(key)

    def _judge(self, key: bytes) -> None:
        del self._suspects[key]
        if len(self._judged) >= MAX_JUDGED:
            self._judged.clear()
        self._judged.add(key)

    def _condemn(self, key: bytes, held: Value | Foreign, row: Row | None) -> None:
        self._judge(key)
        tally = self._tally
        tally.stale += 1
        if row is None:
            tally.orphans += 1
            reason = "there is no such row"
        elif held is Foreign.TYPE:
            reason = f"Redis holds {Foreign.TYPE.value} than format {self._table.rule.format.value} has"
        elif row.value is None:
            reason = "the row has no value"
        else:
            reason = "differs from the row"
        if len(tally.stale_keys) < MAX_NAMED:
            tally.stale_keys.append({"key": key.decode(errors="backslashreplace"), "reason": reason})


_COLUMNS = ("rows", "equal", "absent", "stale")


def _print(tallies: Sequence[Tally]) -> None:
    console = Console(highlight=False)
    for tally in tallies:
        for entry in tally.stale_keys:
            console.out(f"stale: {tally.table}: {entry['key']}: {entry['reason']}", highlight=False)
        if tally.stale > len(tally.stale_keys):
            console.out(f"stale: {tally.table}: and {tally.stale - len(tally.stale_keys):,} more", highlight=False)
    if console.is_terminal and tallies:
        grid = Grid(box=None, padding=(0, 2, 0, 0))
        grid.add_column("table")
        for name in _COLUMNS:
            grid.add_column(name, justify="right")
        for tally in tallies:
            style = "bold red" if tally.stale else "green"
            numbers = [f"{getattr(tally, name):,}" for name in _COLUMNS]
            grid.add_row(Text(tally.table), *numbers[:-1], Text(numbers[-1], style=style))
        console.print(grid)
    else:
        for tally in tallies:
            listed = ", ".join(f"{getattr(tally, name)} {name}" for name in _COLUMNS)
            console.out(f"{tally.table}: {listed}", highlight=False)
    for tally in tallies:
        for line in _remarks(tally):
            console.out(f"note: {tally.table}: {line}", highlight=False)


def _remarks(tally: Tally) -> list[str]:
    found = []
    if tally.orphans:
        found.append(f"{tally.orphans:,} of the stale keys have no row")
    if tally.keyless:
        found.append(f"{tally.keyless:,} rows have no key, since their value is NULL")
    if tally.changing:
        found.append(f"{tally.changing:,} keys changed at every look and were not judged")
    if tally.shared:
        found.append(f"{tally.shared:,} keys without a row may be another [[table]]'s and were not judged")
    return found


def _print_json(tallies: Sequence[Tally], problems: Sequence[str]) -> None:
    document: dict[str, object] = {
        "tables": [{"rows": tally.rows} | asdict(tally) for tally in tallies],
        "problems": list(problems),
    }
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
