"""The operations of a round: pure functions of its seed, so that a seed brings the same ones back.

A session's work is a sequence of units. A unit starts and ends outside a block whatever fails in between: after an
error its remaining steps are sent all the same, up to the COMMIT or ROLLBACK that ends it. Every value written is
another one, so that an old value can always be told from the last.
"""

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple, TypeVar

from tests.consistency.statements import Run, Statements
from tests.consistency.tables import TABLES, keys


class Pause(NamedTuple):
    """Do nothing for so many seconds."""

    seconds: float


class Together(NamedTuple):
    """Send all of these, then wait for their answers: a pipeline up to one Sync."""

    runs: tuple[Run, ...]


class Portions(NamedTuple):
    """Read the rows of a statement a few at a time with pauses between: a portal, left open in a block."""

    run: Run
    pause: float


class Copy(NamedTuple):
    """COPY FROM STDIN of one row in text format."""

    run: Run
    columns: tuple[str, ...]
    row: str


class Finish(NamedTuple):
    """End a prepared transaction of anybody's, if there is one."""

    commit: bool


_Choice = TypeVar("_Choice")
Step = Run | Pause | Together | Portions | Copy | Finish
Unit = tuple[Step, ...]


def size(unit: Unit) -> int:
    """How many operations a unit counts as."""
    return sum(len(step.runs) if isinstance(step, Together) else not isinstance(step, Pause) for step in unit)


def fixture() -> list[Run]:
    """What every table holds when a round begins."""
    runs = []
    for table in reversed(TABLES):  # owners before pets
        writer = Statements(Random(0), 0, table)
        runs.append(Run(f"DELETE FROM {table.name}", table=table.name, writes=None))
        runs += [writer.insert(key, on_conflict="") for key in keys(table)]
    return [run._replace(how="simple") for run in runs]


def units(seed: int, session: int, *, reads: float = 0.5, calm: bool = False) -> Iterator[Unit]:
    """A session's endless work. `reads` is the share of reads among single statements; a `calm` session only reads
    and updates by key, under the tables' own names and one statement at a time."""
    random = Random(f"{seed}/{session}")
    number = 0
    while True:
        number += 1
        yield _Unit(random, session, number, reads, calm).make()


class _Unit:
    """Makes one unit."""

    def __init__(self, random: Random, session: int, number: int, reads: float, calm: bool) -> None:
        self.random = random
        self.calm = calm
        self.reads = reads
        self._session = session
        self._number = number
        self._gid = f"g{session}-{number}-{random.getrandbits(32):x}"

    def make(self) -> Unit:
        if self.calm:
            return (self._any(),)
        return self._pick(
            {
                self._single: 62,
                self._block: 14,
                self._savepoints: 5,
                self._snapshot: 4,
                self._pipeline: 5,
                self._several: 3,
                self._cursor: 2,
                self._portions: 2,
                self._slow: 3,
                self._two_phase: 2,
                self._sql_prepare: 2,
                self._copy: 1,
                self._reinsert: 2,
                self._truncate: 0.3,
            }
        )()

    def _pick(self, weights: dict[_Choice, float]) -> _Choice:
        return self.random.choices(list(weights), list(weights.values()))[0]

    def _writer(self) -> "Statements":
        self._number += 1_000_000
        table = self.random.choice(TABLES)
        if self.calm:
            table = table._replace(aliases=())
        return Statements(self.random, f"{self._session}.{self._number:x}", table)

    def _any(self) -> Run:
        writer = self._writer()
        if self.calm:
            return writer.point() if self.random.random() < self.reads else writer.update()
        return writer.read() if self.random.random() < self.reads else writer.write()

    def _write(self) -> Run:
        return self._writer().write()

    def _read(self) -> Run:
        return self._writer().read()

    def _few(self, most: int) -> list[Run]:
        return [self._any() for _ in range(self.random.randint(1, most))]

    def _end(self) -> Run:
        return Run(self._pick({"COMMIT": 75, "ROLLBACK": 25}))

    def _single(self) -> Unit:
        return (self._any(),)

    def _block(self) -> Unit:
        steps: list[Step] = [Run("BEGIN"), *self._few(3)]
        if self.random.random() < 0.15:
            steps += [Run(self._pick({"COMMIT AND CHAIN": 2, "ROLLBACK AND CHAIN": 1})), *self._few(2)]
        if self.random.random() < 0.15:
            steps += [Run("SELECT 1 / 0"), *self._few(1)]
        if self.random.random() < 0.2:
            steps.append(self._nap())
        return (*steps, self._end())

    def _savepoints(self) -> Unit:
        failure = [Run("SELECT 1 / 0")] if self.random.random() < 0.3 else []
        back = self._pick({"ROLLBACK TO a": 3, "RELEASE a": 2, "SAVEPOINT b": 1})
        steps = [Run("BEGIN"), *self._few(2), Run("SAVEPOINT a"), self._write(), *failure, *self._few(2), Run(back)]
        return (*steps, *self._few(2), self._end())

    def _snapshot(self) -> Unit:
        """A reader whose snapshot gets old."""
        level = self._pick({"REPEATABLE READ": 3, "SERIALIZABLE": 1})
        reads = [self._read() for _ in range(3)]
        steps: list[Step] = [
            Run(f"BEGIN ISOLATION LEVEL {level}"),
            reads[0],
            self._nap(),
            reads[1],
            self._nap(),
            reads[2],
        ]
        if self.random.random() < 0.2:
            steps.append(self._write())
        return (*steps, self._end())

    def _pipeline(self) -> Unit:
        runs = tuple(run._replace(how=self._pick({"extended": 1, "prepared": 1})) for run in self._few(5))
        if self.random.random() < 0.15:
            runs += (Run("SELECT 1 / 0", how="extended"),)
        return (Together(runs),)

    def _several(self) -> Unit:
        """Several statements in one Query, at times undone by the last."""
        runs = self._few(3)
        if self.random.random() < 0.2:
            runs.append(Run("SELECT 1 / 0"))
        text = "; ".join(run.literal for run in runs).replace("{", "{{").replace("}", "}}")
        touched = [run for run in runs if run.table]
        tables = {run.table for run in touched}
        if len(tables) == 1 and all(run.writes is not None for run in touched):
            writes = tuple(key for run in touched for key in run.writes or ())
            return (Run(text, table=tables.pop(), writes=writes),)
        return (Run(text, table=" ".join(sorted(tables)), writes=None),)

    def _cursor(self) -> Unit:
        writer = self._writer()
        hold = self._pick({"": 3, "WITH HOLD": 1})
        declare = Run(f"DECLARE c CURSOR {hold} FOR {writer.all_rows().text}")
        fetch = Run("FETCH 3 FROM c", table=writer.table.name, reads=tuple(keys(writer.table)))
        steps: list[Step] = [Run("BEGIN"), *self._few(1), declare, fetch, self._nap(), self._any(), fetch]
        if hold:
            return (*steps, Run("COMMIT"), self._nap(), fetch, Run("CLOSE c"))
        return (*steps, self._end())

    def _portions(self) -> Unit:
        return (Run("BEGIN"), Portions(self._writer().all_rows(), self.random.uniform(0.001, 0.01)), Run("COMMIT"))

    def _slow(self) -> Unit:
        """A read that takes its time; at times in a block that goes on."""
        slow = self._writer().slow(self.random.uniform(0.002, 0.03))
        return (slow,) if self.random.random() < 0.7 else (Run("BEGIN"), slow, self._any(), self._end())

    def _two_phase(self) -> Unit:
        steps: list[Step] = [Run("BEGIN"), *self._few(2), self._write(), Run(f"PREPARE TRANSACTION '{self._gid}'")]
        return (*steps, self._nap(), Finish(self.random.random() < 0.8))

    def _sql_prepare(self) -> Unit:
        run = self._any()
        names = (f"${number}" for number in range(1, len(run.values) + 1))
        types = ", ".join(_type_name(value) for value in run.values)
        body = run.text.format(*names).replace("{", "{{").replace("}", "}}")
        prepare = Run(f"PREPARE p{f' ({types})' if types else ''} AS {body}")
        slots = ", ".join("{}" for _ in run.values)
        execute = run._replace(text=f"EXECUTE p{f' ({slots})' if slots else ''}", how="simple")
        return (prepare, execute, execute, Run("DEALLOCATE p"))

    def _copy(self) -> Unit:
        writer = self._writer()
        key = self.random.choice(keys(writer.table, 1))
        row = "\t".join(_copy_text(value) for value in (*key, *writer.values().values()))
        columns = (*writer.table.key, *writer.table.columns)
        text = f"COPY {writer.table.name} ({', '.join(columns)}) FROM STDIN"
        copy = Copy(Run(text, table=writer.table.name, writes=(key,)), columns, row + "\n")
        return (Run("BEGIN"), writer.delete(key), copy, self._end())

    def _reinsert(self) -> Unit:
        writer = self._writer()
        key = self.random.choice(keys(writer.table))
        return (Run("BEGIN"), writer.delete(key), self._nap(), writer.insert(key, on_conflict=""), self._end())

    def _truncate(self) -> Unit:
        writer = self._writer()
        name = writer.table.name
        cascade = " CASCADE" if name == "owners" else ""
        fill = [writer.insert(key) for key in keys(writer.table)]
        return (Run("BEGIN"), Run(f"TRUNCATE {name}{cascade}", table=name, writes=None), *fill, self._end())

    def _nap(self) -> Pause:
        return Pause(self.random.choice((0.0, 0.001, 0.005, 0.02)))


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, list):
        return "int[]" if isinstance(value[0], int) else "text[]"
    return "int" if isinstance(value, int) else "unknown"


def _copy_text(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value).replace("\\", "\\\\")
