"""Single statements of the workload: every kind of read and write, with values that were never used before."""

import json
from random import Random
from typing import Any, NamedTuple

from tests.consistency.tables import Key, Table, keys

MODES = ("simple", "extended", "prepared", "binary")
"""How a statement is sent: by a simple query, as an unnamed or a named prepared statement, or the latter with binary
results."""


class Statement(NamedTuple):
    """One statement. `text` has `{}` for each of `values`. `reads` and `writes` are the keys of `table` which it may
    read or write, None for any key; the journal and cache_aside.py use them."""

    text: str
    values: tuple[Any, ...] = ()
    mode: str = "simple"
    table: str = ""
    reads: tuple[Key, ...] = ()
    writes: tuple[Key, ...] | None = ()

    @property
    def parameterized(self) -> str:
        """The text with parameters, $1, $2 …"""
        return self.text.format(*(f"${number}" for number in range(1, len(self.values) + 1)))

    @property
    def literal(self) -> str:
        """The text with constants."""
        return self.text.format(*map(literal, self.values))


def literal(value: Any) -> str:
    """`value` as an SQL constant."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return literal("{{{}}}".format(",".join(map(json.dumps, value))))
    return "'{}'".format(value.replace("'", "''"))


class StatementMaker:
    """Makes statements on one table; `stamp` is part of every value."""

    def __init__(self, random: Random, stamp: object, table: Table) -> None:
        self.random = random
        self.table = table
        self._stamp = stamp
        self._count = 0
        self._where = " AND ".join(f"{column} = {{}}" for column in table.key)
        self._everything = ", ".join((*table.key, *table.columns))

    # Values.

    def value(self, kind: str) -> Any:
        """A value that was never used before, as far as the type permits."""
        self._count += 1
        text = f"{self._stamp}.{self._count}"
        if kind == "int":
            return None if self.random.random() < 0.05 else self.random.randrange(2**31)
        if kind == "bool":
            return self.random.random() < 0.5
        if kind == "json":
            return json.dumps({"v": text, "ü": [1.5, None]}, ensure_ascii=self.random.random() < 0.5)
        if self.random.random() < (0.4 if kind == "null" else 0.05):
            return None
        return f"v{text}" + self.random.choice(("", " it's", " ü", "\\", '"', "%"))

    def values(self) -> dict[str, Any]:
        """A value for each value column."""
        return {column: self.value(kind) for column, kind in self.table.columns.items()}

    def key(self, spare: int = 0) -> Key:
        return self.random.choice(keys(self.table, spare))

    def _run(self, text: str, values: Any = (), **facts: Any) -> Statement:
        mode = self.random.choices(MODES, (4, 2, 3, 2))[0]
        return Statement(text, tuple(values), mode, self.table.name, **facts)

    def _name(self) -> str:
        """The table's name, or, at times, that of a view or partition through which its rows are written."""
        names = self.table.aliases if self.random.random() < 0.2 else ()
        return self.random.choice(names or (self.table.name,))

    # Reads.

    def read(self) -> Statement:
        make = self.random.choices((self.point, self.listed, self.all_rows, self.locked, self.slow), (60, 15, 15, 6, 1))
        return make[0]()

    def point(self) -> Statement:
        key = self.key(1)
        columns = self.random.choice((self._everything, "*", ", ".join(self.table.columns)))
        return self._run(f"SELECT {columns} FROM {self.table.name} WHERE {self._where}", key, reads=(key,))

    def listed(self) -> Statement:
        chosen = tuple(self.key() for _ in range(3))
        last = [key[-1] for key in chosen]
        text, values = self.random.choice((("IN ({}, {}, {})", last), ("= ANY({})", [last])))
        where = f"{self.table.key[-1]} {text}"
        return self._run(f"SELECT {self._everything} FROM {self.table.name} WHERE {where}", values, reads=chosen)

    def all_rows(self) -> Statement:
        order = self.random.choice(("", f" ORDER BY {self.table.key[-1]} DESC"))
        found = tuple(keys(self.table))
        return self._run(f"SELECT {self._everything} FROM {self._name()}{order}", reads=found)

    def locked(self) -> Statement:
        """A read that may wait for a writer's lock, and then sees the row as written."""
        key = self.key()
        lock = self.random.choice(("UPDATE", "SHARE"))
        text = f"SELECT {self._everything} FROM {self.table.name} WHERE {self._where} FOR {lock}"
        return self._run(text, key, reads=(key,))

    def slow(self, seconds: float = 0.005) -> Statement:
        """Its snapshot is taken when it begins; its rows are sent after the sleep."""
        text = self.random.choice(
            (
                f"SELECT t.* FROM {self.table.name} t, stable_sleep({seconds:.3f})",
                f"WITH w AS MATERIALIZED (SELECT stable_sleep({seconds:.3f})) SELECT t.* FROM {self.table.name} t, w",
                f"SELECT t.*, count(*) OVER (), (SELECT stable_sleep({seconds:.3f})) FROM {self.table.name} t",
            )
        )
        return self._run(text, reads=tuple(keys(self.table)))

    # Writes.

    def write(self) -> Statement:
        makers = {
            self.update: 30,
            self.update_expression: 8,
            self.update_returning: 6,
            self.update_listed: 5,
            self.update_unknown: 3,
            self.update_key: 3,
            self.insert: 6,
            self.upsert: 12,
            self.upsert_many: 4,
            self.upsert_returning: 4,
            self.delete: 4,
            self.delete_returning: 2,
            self.move: 3,
            self.merge: 2,
            self.nothing: 2,
        }
        return self.random.choices(list(makers), list(makers.values()))[0]()

    def _settings(self) -> tuple[str, list[Any]]:
        chosen = self.values()
        if self.random.random() < 0.4:
            column = self.random.choice(list(chosen))
            chosen = {column: chosen[column]}
        return ", ".join(f"{column} = {{}}" for column in chosen), list(chosen.values())

    def update(self) -> Statement:
        key, (settings, values) = self.key(1), self._settings()
        return self._run(f"UPDATE {self._name()} SET {settings} WHERE {self._where}", (*values, *key), writes=(key,))

    def update_expression(self) -> Statement:
        key = self.key()
        text = self.random.choice([f"n = (n % 1000000) + {self.random.randrange(1, 1000)}", *self._expressions()])
        return self._run(f"UPDATE {self.table.name} SET {text} WHERE {self._where}", key, writes=(key,))

    def _expressions(self) -> list[str]:
        return ["name = 'e' || md5(name)"] if "name" in self.table.columns else ["flag = NOT flag"]

    def update_returning(self) -> Statement:
        statement = self.update()
        returning = self.random.choice(("*", self._everything, self.table.key[-1]))
        return statement._replace(text=f"{statement.text} RETURNING {returning}")

    def update_listed(self) -> Statement:
        chosen, (settings, values) = tuple(self.key() for _ in range(2)), self._settings()
        last = [key[-1] for key in chosen]
        where = (
            f"{self.table.key[-1]} IN ({{}}, {{}})"
            if self.random.random() < 0.5
            else f"{self.table.key[-1]} = ANY({{}})"
        )
        values += last if "IN" in where else [last]
        returning = self.random.choice(("", " RETURNING *"))
        return self._run(f"UPDATE {self.table.name} SET {settings} WHERE {where}{returning}", values, writes=chosen)

    def update_unknown(self) -> Statement:
        settings, values = self._settings()
        where = f"n % 7 = {self.random.randrange(7)}"
        returning = self.random.choice(("", "", " RETURNING *"))
        return self._run(f"UPDATE {self.table.name} SET {settings} WHERE {where}{returning}", values, writes=None)

    def update_key(self) -> Statement:
        old, new = self.key(2), self.key(2)
        settings = ", ".join(f"{column} = {{}}" for column in self.table.key)
        text = f"UPDATE {self.table.name} SET {settings} WHERE {self._where}"
        return self._run(text, (*new, *old), writes=(old, new))

    def insert(self, key: Key | None = None, on_conflict: str | None = None) -> Statement:
        key = key or self.key(2)
        clause = self.random.choice(("", " ON CONFLICT DO NOTHING")) if on_conflict is None else on_conflict
        values = self.values()
        slots = ", ".join("{}" for _ in (*key, *values))
        text = f"INSERT INTO {self.table.name} ({self._everything}) VALUES ({slots}){clause}"
        return self._run(text, (*key, *values.values()), writes=(key,))

    def upsert(self) -> Statement:
        statement = self.insert(self.key(1), "")
        settings = ", ".join(f"{column} = excluded.{column}" for column in self.table.columns)
        return statement._replace(
            text=f"{statement.text} ON CONFLICT ({', '.join(self.table.key)}) DO UPDATE SET {settings}"
        )

    def upsert_returning(self) -> Statement:
        statement = self.upsert()
        return statement._replace(text=f"{statement.text} RETURNING {self._everything}")

    def upsert_many(self) -> Statement:
        chosen = self.random.sample(keys(self.table), 3)
        values: list[Any] = []
        for key in chosen:
            values += (*key, *self.values().values())
        row = "({})".format(", ".join("{}" for _ in range(len(values) // 3)))
        settings = ", ".join(f"{column} = excluded.{column}" for column in self.table.columns)
        text = (
            f"INSERT INTO {self.table.name} ({self._everything}) VALUES {row}, {row}, {row} "
            f"ON CONFLICT ({', '.join(self.table.key)}) DO UPDATE SET {settings}"
        )
        return self._run(text, values, writes=tuple(chosen))

    def delete(self, key: Key | None = None) -> Statement:
        key = key or self.key(2)
        return self._run(f"DELETE FROM {self.table.name} WHERE {self._where}", key, writes=(key,))

    def delete_returning(self) -> Statement:
        statement = self.delete()
        return statement._replace(text=f"{statement.text} RETURNING *")

    def move(self) -> Statement:
        """A data-modifying CTE: one row is deleted and inserted again, or a row is updated and read."""
        old, new = self.key(1), self.key(1)
        settings, values = self._settings()
        if self.random.random() < 0.5:
            text = (
                f"WITH w AS (UPDATE {self.table.name} SET {settings} WHERE {self._where} RETURNING *) SELECT * FROM w"
            )
            return self._run(text, (*values, *old), writes=(old,))
        slots = ", ".join("{}" for _ in new)
        columns = ", ".join(self.table.columns)
        text = (
            f"WITH w AS (DELETE FROM {self.table.name} WHERE {self._where} RETURNING {columns}) "
            f"INSERT INTO {self.table.name} ({self._everything}) SELECT {slots}, {columns} FROM w"
        )
        # Parameters in a SELECT list would have the type text, whatever column they are for.
        return Statement(text, (*old, *new), "simple", self.table.name, writes=(old, new))

    def merge(self) -> Statement:
        key = self.key()
        values = self.values()
        on = " AND ".join(f"t.{column} = {{}}" for column in self.table.key)
        settings = ", ".join(f"{column} = {{}}" for column in values)
        text = f"MERGE INTO {self.table.name} t USING (SELECT 1) s ON {on} WHEN MATCHED THEN UPDATE SET {settings}"
        return self._run(text, (*key, *values.values()), writes=(key,))

    def nothing(self) -> Statement:
        """An UPDATE that finds no row."""
        settings, values = self._settings()
        text = f"UPDATE {self.table.name} SET {settings} WHERE {self._where} AND false"
        return self._run(text, (*values, *self.key()), writes=())
