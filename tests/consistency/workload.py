"""The operations of a round: pure functions of its seed, so that a seed gives the same operations again.

A session's work is a sequence of units. A unit begins and ends outside a transaction block: after an error its
remaining steps are sent as well, up to the COMMIT or ROLLBACK that ends the block. Every value written is new, so that
an old value can always be distinguished from the last one.
"""

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple, TypeVar

from tests.consistency.statements import Statement, StatementMaker
from tests.consistency.tables import TABLES, keys


class Pause(NamedTuple):
    """Do nothing for this number of seconds."""

    seconds: float


class Pipeline(NamedTuple):
    """Send all of these, then wait for their answers: a pipeline up to one Sync."""

    statements: tuple[Statement, ...]


class PortalRead(NamedTuple):
    """Read the rows of a statement in several parts with pauses between them: a portal that stays open in a block."""

    statement: Statement
    pause: float


class Copy(NamedTuple):
    """COPY FROM STDIN of one row in text format."""

    statement: Statement
    columns: tuple[str, ...]
    row: str


class EndPrepared(NamedTuple):
    """End a prepared transaction of any session, if there is one."""

    commit: bool


_Choice = TypeVar("_Choice")
Step = Statement | Pause | Pipeline | PortalRead | Copy | EndPrepared
Unit = tuple[Step, ...]


def size(unit: Unit) -> int:
    """How many operations a unit counts as."""
    return sum(len(step.statements) if isinstance(step, Pipeline) else not isinstance(step, Pause) for step in unit)


def initial_rows() -> list[Statement]:
    """The statements that insert the rows every table has when a round begins."""
    statements = []
    for table in reversed(TABLES):  # owners before pets
        writer = StatementMaker(Random(0), 0, table)
        statements.append(Statement(f"DELETE FROM {table.name}", table=table.name, writes=None))
        statements += [writer.insert(key, on_conflict="") for key in keys(table)]
    return [statement._replace(mode="simple") for statement in statements]


def units(seed: int, session: int, *, reads: float = 0.5, by_key_only: bool = False) -> Iterator[Unit]:
    """The endless work of a session. `reads` is the share of reads among single statements. With `by_key_only` the
    session only reads and updates by key, one statement at a time, and uses the tables' own names."""
    random = Random(f"{seed}/{session}")
    number = 0
    while True:
        number += 1
        yield _Unit(random, session, number, reads, by_key_only).make()


class _Unit:
    """Makes one unit."""

    def __init__(self, random: Random, session: int, number: int, reads: float, by_key_only: bool) -> None:
        self.random = random
        self.by_key_only = by_key_only
        self.reads = reads
        self._session = session
        self._number = number
        self._gid = f"g{session}-{number}-{random.getrandbits(32):x}"

    def make(self) -> Unit:
        if self.by_key_only:
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
                self._portal_read: 2,
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

    def _writer(self) -> "StatementMaker":
        self._number += 1_000_000
        table = self.random.choice(TABLES)
        if self.by_key_only:
            table = table._replace(aliases=())
        return StatementMaker(self.random, f"{self._session}.{self._number:x}", table)

    def _any(self) -> Statement:
        writer = self._writer()
        if self.by_key_only:
            return writer.point() if self.random.random() < self.reads else writer.update()
        return writer.read() if self.random.random() < self.reads else writer.write()

    def _write(self) -> Statement:
        return self._writer().write()

    def _read(self) -> Statement:
        return self._writer().read()

    def _few(self, most: int) -> list[Statement]:
        return [self._any() for _ in range(self.random.randint(1, most))]

    def _end(self) -> Statement:
        return Statement(self._pick({"COMMIT": 75, "ROLLBACK": 25}))

    def _single(self) -> Unit:
        return (self._any(),)

    def _block(self) -> Unit:
        steps: list[Step] = [Statement("BEGIN"), *self._few(3)]
        if self.random.random() < 0.15:
            steps += [Statement(self._pick({"COMMIT AND CHAIN": 2, "ROLLBACK AND CHAIN": 1})), *self._few(2)]
        if self.random.random() < 0.15:
            steps += [Statement("SELECT 1 / 0"), *self._few(1)]
        if self.random.random() < 0.2:
            steps.append(self._pause())
        return (*steps, self._end())

    def _savepoints(self) -> Unit:
        failure = [Statement("SELECT 1 / 0")] if self.random.random() < 0.3 else []
        back = self._pick({"ROLLBACK TO a": 3, "RELEASE a": 2, "SAVEPOINT b": 1})
        steps = [
            Statement("BEGIN"),
            *self._few(2),
            Statement("SAVEPOINT a"),
            self._write(),
            *failure,
            *self._few(2),
            Statement(back),
        ]
        return (*steps, *self._few(2), self._end())

    def _snapshot(self) -> Unit:
        """Reads in one old snapshot."""
        level = self._pick({"REPEATABLE READ": 3, "SERIALIZABLE": 1})
        reads = [self._read() for _ in range(3)]
        steps: list[Step] = [
            Statement(f"BEGIN ISOLATION LEVEL {level}"),
            reads[0],
            self._pause(),
            reads[1],
            self._pause(),
            reads[2],
        ]
        if self.random.random() < 0.2:
            steps.append(self._write())
        return (*steps, self._end())

    def _pipeline(self) -> Unit:
        statements = tuple(
            statement._replace(mode=self._pick({"extended": 1, "prepared": 1})) for statement in self._few(5)
        )
        if self.random.random() < 0.15:
            statements += (Statement("SELECT 1 / 0", mode="extended"),)
        return (Pipeline(statements),)

    def _several(self) -> Unit:
        """Several statements in one simple query; at times the last one fails and undoes them."""
        statements = self._few(3)
        if self.random.random() < 0.2:
            statements.append(Statement("SELECT 1 / 0"))
        text = "; ".join(statement.literal for statement in statements).replace("{", "{{").replace("}", "}}")
        touched = [statement for statement in statements if statement.table]
        tables = {statement.table for statement in touched}
        if len(tables) == 1 and all(statement.writes is not None for statement in touched):
            writes = tuple(key for statement in touched for key in statement.writes or ())
            return (Statement(text, table=tables.pop(), writes=writes),)
        return (Statement(text, table=" ".join(sorted(tables)), writes=None),)

    def _cursor(self) -> Unit:
        writer = self._writer()
        hold = self._pick({"": 3, "WITH HOLD": 1})
        declare = Statement(f"DECLARE c CURSOR {hold} FOR {writer.all_rows().text}")
        fetch = Statement("FETCH 3 FROM c", table=writer.table.name, reads=tuple(keys(writer.table)))
        steps: list[Step] = [Statement("BEGIN"), *self._few(1), declare, fetch, self._pause(), self._any(), fetch]
        if hold:
            return (*steps, Statement("COMMIT"), self._pause(), fetch, Statement("CLOSE c"))
        return (*steps, self._end())

    def _portal_read(self) -> Unit:
        return (
            Statement("BEGIN"),
            PortalRead(self._writer().all_rows(), self.random.uniform(0.001, 0.01)),
            Statement("COMMIT"),
        )

    def _slow(self) -> Unit:
        """A slow read; at times within a block that goes on."""
        slow = self._writer().slow(self.random.uniform(0.002, 0.03))
        return (slow,) if self.random.random() < 0.7 else (Statement("BEGIN"), slow, self._any(), self._end())

    def _two_phase(self) -> Unit:
        steps: list[Step] = [
            Statement("BEGIN"),
            *self._few(2),
            self._write(),
            Statement(f"PREPARE TRANSACTION '{self._gid}'"),
        ]
        return (*steps, self._pause(), EndPrepared(self.random.random() < 0.8))

    def _sql_prepare(self) -> Unit:
        statement = self._any()
        names = (f"${number}" for number in range(1, len(statement.values) + 1))
        types = ", ".join(_type_name(value) for value in statement.values)
        body = statement.text.format(*names).replace("{", "{{").replace("}", "}}")
        prepare = Statement(f"PREPARE p{f' ({types})' if types else ''} AS {body}")
        slots = ", ".join("{}" for _ in statement.values)
        execute = statement._replace(text=f"EXECUTE p{f' ({slots})' if slots else ''}", mode="simple")
        return (prepare, execute, execute, Statement("DEALLOCATE p"))

    def _copy(self) -> Unit:
        writer = self._writer()
        key = self.random.choice(keys(writer.table, 1))
        row = "\t".join(_copy_text(value) for value in (*key, *writer.values().values()))
        columns = (*writer.table.key, *writer.table.columns)
        text = f"COPY {writer.table.name} ({', '.join(columns)}) FROM STDIN"
        copy = Copy(Statement(text, table=writer.table.name, writes=(key,)), columns, row + "\n")
        return (Statement("BEGIN"), writer.delete(key), copy, self._end())

    def _reinsert(self) -> Unit:
        writer = self._writer()
        key = self.random.choice(keys(writer.table))
        return (Statement("BEGIN"), writer.delete(key), self._pause(), writer.insert(key, on_conflict=""), self._end())

    def _truncate(self) -> Unit:
        writer = self._writer()
        name = writer.table.name
        cascade = " CASCADE" if name == "owners" else ""
        fill = [writer.insert(key) for key in keys(writer.table)]
        return (Statement("BEGIN"), Statement(f"TRUNCATE {name}{cascade}", table=name, writes=None), *fill, self._end())

    def _pause(self) -> Pause:
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
