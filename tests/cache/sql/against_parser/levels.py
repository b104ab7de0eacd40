"""The FROM clause of one query level: which relations stand in it, and which conditions hold for the rows of each."""

from typing import Any, NamedTuple

from postgast import pg_query_pb2 as pb

from tests.cache.sql.against_parser.conditions import (
    ColumnEquality,
    Columns,
    Constant,
    conjuncts,
    constant,
    element_of,
    equal_columns,
    equalities,
    inner,
    strings,
)
from tests.cache.sql.against_parser.records import AnalysisError, Occurrence

Node = Any


class List(NamedTuple):
    """``(VALUES …) AS v (id, name)``, or ``unnest(…) AS v (id, name)``."""

    names: list[str]
    rows: list[tuple[Constant | None, ...]]
    arrays: list[Node]

    def equalities(self, qualifier: tuple[str, ...] | None, pairs: list[tuple[str, str]]) -> list[ColumnEquality]:
        """What it says of columns that equal its own."""
        found: list[ColumnEquality] = []
        known = [(column, self.names.index(name)) for column, name in pairs if name in self.names]
        if self.rows and known:
            rows = tuple(tuple(one[place] for _, place in known) for one in self.rows)
            found.append(ColumnEquality(qualifier, tuple(column for column, _ in known), rows))
        for column, place in known:
            if place < len(self.arrays):
                found += element_of((qualifier, (column,)), self.arrays[place])
        return found


class Level:
    """The FROM clause of one query level."""

    def __init__(self) -> None:
        self.surfacing: list[Occurrence] = []
        self.direct: list[Occurrence] = []
        self.merged: set[str] = set()
        """Columns of USING, which are columns of no relation; ``*`` for NATURAL."""
        self.lists: dict[str, List] = {}
        """The lists of constants in it, by alias."""
        self.pairs: list[tuple[list[Occurrence], Columns, Columns]] = []
        """Columns that are equal to each other, and the relations whose columns they may be."""

    def hold(self, condition: Node, those: list[Occurrence]) -> None:
        """A condition holds for each row of these relations."""
        for part in conjuncts(condition):
            for found in equalities(part):
                self._attach(found, those)
            if (pair := equal_columns(part)) is not None:
                self.pairs.append((list(those), *pair))

    def follow_lists(self) -> None:
        """What ``u.id = v.id`` says where ``v`` is a list of constants."""
        for alias, listed in self.lists.items():
            for one in {id(one): one for those, _, _ in self.pairs for one in those}.values():
                matched: dict[tuple[str, ...] | None, list[tuple[str, str]]] = {}
                for those, left, right in self.pairs:
                    for (qualifier, columns), (of, names) in ((left, right), (right, left)):
                        if of == (alias,) and qualifier != of and any(one is other for other in those):
                            matched.setdefault(qualifier, []).extend(zip(columns, names, strict=True))
                for qualifier, pairs in matched.items():
                    for found in listed.equalities(qualifier, pairs):
                        self._attach(found, [one])

    def _attach(self, found: ColumnEquality, those: list[Occurrence]) -> None:
        for one in those:
            hidden = found.qualifier is None and self.merged & {"*", *found.columns}
            if found.speaks_of(one.alias, one.name.schema, one.name.name) and not hidden:
                one.equalities = (*one.equalities, found)


def list_in(item: Node) -> List | None:
    names = strings(item.alias.colnames)
    if isinstance(item, pb.RangeSubselect):
        query = inner(item.subquery)
        if isinstance(query, pb.SelectStmt) and query.values_lists:
            rows = [tuple(constant(inner(one)) for one in inner(entry).items) for entry in query.values_lists]
            if len({len(one) for one in rows}) > 1 or len(names) > len(rows[0]):
                raise AnalysisError("VALUES lists must all be the same length, and long enough for their names")
            names += [f"column{number}" for number in range(len(names) + 1, len(rows[0]) + 1)]
            return List(names, rows, [])
    elif isinstance(item, pb.RangeFunction) and not item.is_rowsfrom and len(item.functions) == 1:
        called = inner(inner(item.functions[0]).items[0])
        if isinstance(called, pb.FuncCall) and strings(called.funcname)[-1] == "unnest":
            return List(names, [], [inner(one) for one in called.args])
    return None
