"""Reads single expressions in the SQL parser's tree: constants, and conditions that equate columns with constants.

``queries`` walks the tree of a statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlglot import exp

from cache.builtin_types import CONSTANT_TYPES
from cache.sql.canonical import CALL_PREFIX, LIST_PREFIX
from cache.sql.plans import Operand, OperandSource
from cache.sql.statements import Equality, Name, TableReference, UnreadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_TYPES = {exp.DataType.build(found.name, dialect="postgres").this: found.name for found in CONSTANT_TYPES.values()}
"""``Operand.cast``'s names of the types of which a constant's text is certain, by the parser's own."""
_GROUPING_SETS = (exp.Rollup, exp.Cube, exp.GroupingSets)
_MAX_REFERENCES = 500


class Condition(NamedTuple):
    """A condition on the rows of a FROM clause, and the relations whose columns it can refer to without their name."""

    node: exp.Expr
    first: int = 0
    end: int | None = None
    """A part of ``FromClause.named``: for an ON, the two sides of its join."""


class FromClause:
    """The FROM clause of a SELECT, UPDATE or DELETE, with the conditions on its rows."""

    __slots__ = ("conditions", "constant_lists", "has_merged_columns", "named", "visible")

    def __init__(self) -> None:
        self.named: list[TableReference] = []
        """Relations named in this FROM clause itself."""
        self.visible: list[TableReference] = []
        """The same, and the relations that its subqueries and CTEs show columns of."""
        self.conditions: list[Condition] = []
        """What every row of the result meets: WHERE, and ON of inner joins."""
        self.constant_lists: dict[str, ConstantList] = {}
        """Lists of constants in this FROM clause, by alias."""
        self.has_merged_columns = False
        """USING or NATURAL: an unqualified column may be one of two relations."""

    def add(self, references: Iterable[TableReference]) -> None:
        for reference in references:
            if reference in self.visible:
                reference.uses = 2
            else:
                self.visible.append(reference)
        if len(self.visible) > _MAX_REFERENCES:
            raise UnreadError("too many relations")

    def attach_equalities(self) -> None:
        """Add to each relation the equalities of its columns with constants."""
        for condition in self.conditions:
            for qualifier, schema, equality in self._equalities(condition):
                for reference in self.named[condition.first : condition.end]:
                    if qualifier is None:
                        matches = not self.has_merged_columns
                    elif schema is not None:
                        matches = reference.name == Name(schema, qualifier) and reference.alias == qualifier
                    else:
                        matches = reference.alias == qualifier
                    if matches and not reference.renamed:
                        reference.equalities.append(equality)

    def _equalities(self, condition: Condition) -> Iterator[tuple[str | None, str | None, Equality]]:
        for part in conjuncts([condition.node]):
            found = equality_of(part)
            if found is not None:
                yield found
        if self.constant_lists:
            yield from self._equalities_with_lists(condition)

    def _equalities_with_lists(self, condition: Condition) -> Iterator[tuple[str | None, str | None, Equality]]:
        """The equalities that ``u.id = v.id`` means where ``v`` is a list of constants."""
        pairs: dict[tuple[str, str | None, str | None], list[tuple[str, str]]] = {}
        for part in conjuncts([condition.node]):
            if type(part) is not exp.EQ:
                continue
            left, right = _columns(part.this), _columns(part.expression)
            if left is None or right is None or len(left[2]) != len(right[2]):
                continue
            for (qualifier, schema, names), (alias, _, constant_lists) in ((left, right), (right, left)):
                if alias in self.constant_lists and qualifier not in self.constant_lists:
                    pairs.setdefault((alias, qualifier, schema), []).extend(zip(names, constant_lists, strict=True))
        for (alias, qualifier, schema), columns in pairs.items():
            for equality in self.constant_lists[alias].equalities(columns):
                yield qualifier, schema, equality


class ConstantList:
    """A list of constants in a FROM clause: ``(VALUES (1, 'a'), …) AS v (id, name)``, ``unnest($1::int[], …) AS …``."""

    __slots__ = ("_arrays", "_names", "_rows")

    def __init__(self, names: Sequence[str], rows: Sequence[exp.Expr] = (), arrays: Sequence[exp.Expr] = ()) -> None:
        self._names = names
        self._rows = tuple(row_of(entry) for entry in rows)
        self._arrays = arrays

    def equalities(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Equality]:
        """The equalities of columns elsewhere with columns of this list; each pair names first the one elsewhere."""
        known = [(column, self._names.index(name)) for column, name in pairs if name in self._names]
        if self._rows:
            width = min(len(row) for row in self._rows)
            known = [(column, position) for column, position in known if position < width]
            rows = tuple(tuple(row[position] for _, position in known) for row in self._rows)
            if known:
                yield Equality(tuple(column for column, _ in known), rows)
        for column, position in known:
            if position < len(self._arrays) and (found := _any((None, None, (column,)), self._arrays[position])):
                yield found[2]


def constant_list_in(node: exp.Expr) -> tuple[str, ConstantList] | None:
    """The alias and the constants of an item of a FROM clause that is a list of constants."""
    alias = node.args.get("alias")
    if alias is None or alias.this is None:
        return None
    names = [identifier_text(column) for column in alias.args.get("columns") or ()]
    if isinstance(node, exp.Values):
        width = max(len(row_of(entry)) for entry in node.expressions)
        names += [f"column{number}" for number in range(len(names) + 1, width + 1)]
        return identifier_text(alias.this), ConstantList(names, rows=node.expressions)
    called = node.this
    if isinstance(called, exp.Anonymous) and called.name == f"{CALL_PREFIX}unnest" and node.args.get("db") is None:
        return identifier_text(alias.this), ConstantList(names, arrays=called.expressions)
    return None


def identifier_text(identifier: exp.Expr) -> str:
    """The name as PostgreSQL stores it. Raises UnreadError if the node is no identifier."""
    if not isinstance(identifier, exp.Identifier):
        raise UnreadError("a name that is not an identifier")
    return str(identifier.this).removeprefix(CALL_PREFIX)


def relation_name(table: exp.Expr) -> Name:
    """The name of a table or view, with its schema if that is written."""
    schema = table.args.get("db")
    return Name(None if schema is None else identifier_text(schema), identifier_text(table.this))


def is_join(node: exp.Expr) -> bool:
    """A subquery that is the first item of a join in parentheses: ``((SELECT …) AS a JOIN b …)``."""
    return isinstance(node, exp.Subquery) and (bool(node.args.get("joins")) or node.args.get("alias") is not None)


def has_grouping_sets(group: exp.Expr) -> bool:
    """Whether GROUP BY has ROLLUP, CUBE or GROUPING SETS anywhere in it."""
    return group.find(*_GROUPING_SETS) is not None


def conflict_columns(conflict: exp.Expr) -> frozenset[str] | None:
    """The columns of ON CONFLICT (a, b)."""
    names: set[str] = set()
    for key in conflict.args.get("conflict_keys") or ():
        column = key.this if isinstance(key, exp.Ordered) else key
        if not isinstance(column, exp.Column):
            return None
        names.add(identifier_text(column.this))
    return frozenset(names) or None


def refers_to(returning: exp.Expr, names: frozenset[str]) -> bool:
    """Whether RETURNING has a column of a row that bears one of these names, or the whole row."""
    for column in returning.find_all(exp.Column):
        table = column.args.get("table")
        if (identifier_text(table) if table is not None else column.name) in names:
            return True
    return False


def conjuncts(conditions: Sequence[exp.Expr]) -> Iterator[exp.Expr]:
    """The parts of the conditions' top-level ANDs."""
    waiting = list(reversed(conditions))
    while waiting:
        node = waiting.pop()
        if isinstance(node, exp.And):
            waiting += [node.expression, node.this]
        elif isinstance(node, exp.Paren):
            waiting.append(node.this)
        else:
            yield node


def equality_of(node: exp.Expr) -> tuple[str | None, str | None, Equality] | None:
    """The equality a condition is, if it equates columns of one relation with constants; before it the qualifier of the
    columns and the qualifier's schema."""
    if isinstance(node, exp.In):
        columns = _columns(node.this)
        if columns is None or node.args.get("query") is not None or node.args.get("unnest") is not None:
            return None
        array = _list_slot(node.expressions)
        if array is not None:
            return (*columns[:2], Equality(columns[2], array=array)) if len(columns[2]) == 1 else None
        return _fixed(columns, node.expressions)
    if type(node) is not exp.EQ:
        return None
    for column, other in ((node.this, node.expression), (node.expression, node.this)):
        columns = _columns(column)
        if columns is None:
            continue
        if isinstance(other, exp.Any):
            return _any(columns, other.this) if column is node.this and len(columns[2]) == 1 else None
        return _fixed(columns, [other])
    return None


def _fixed(
    columns: tuple[str | None, str | None, tuple[str, ...]], entries: Sequence[exp.Expr]
) -> tuple[str | None, str | None, Equality] | None:
    qualifier, schema, names = columns
    rows = tuple(row_of(entry) if len(names) > 1 else (operand_of(entry),) for entry in entries)
    if not rows or any(len(row) != len(names) for row in rows):
        return None
    return qualifier, schema, Equality(names, rows)


def _any(
    columns: tuple[str | None, str | None, tuple[str, ...]], node: exp.Expr
) -> tuple[str | None, str | None, Equality] | None:
    while isinstance(node, exp.Paren):
        node = node.this
    inner = node.this if type(node) is exp.Cast else node
    if isinstance(inner, exp.Array) and (inner is node or _type(node.args["to"]) is not None):
        return _fixed(columns, inner.expressions)
    operand = operand_of(node, arrays=True)
    if operand is None or operand.source not in (OperandSource.LITERAL, OperandSource.PARAMETER):
        return None
    return (*columns[:2], Equality(columns[2], array=operand))


def _columns(node: exp.Expr) -> tuple[str | None, str | None, tuple[str, ...]] | None:
    """One column, or a row of columns, all with the same qualifier."""
    while isinstance(node, exp.Paren):
        node = node.this
    entries = _entries(node)
    qualifiers: set[tuple[str | None, str | None]] = set()
    names: list[str] = []
    for entry in [node] if entries is None else entries:
        if not isinstance(entry, exp.Column) or not isinstance(entry.this, exp.Identifier):
            return None
        if not entry.this.args.get("quoted") or entry.args.get("catalog") is not None:
            return None
        table, schema = entry.args.get("table"), entry.args.get("db")
        qualifiers.add(
            (
                None if table is None else identifier_text(table),
                None if schema is None else identifier_text(schema),
            )
        )
        names.append(identifier_text(entry.this))
    if len(qualifiers) != 1:
        return None
    return (*qualifiers.pop(), tuple(names))


def _entries(node: exp.Expr) -> list[exp.Expr] | None:
    """The entries of ``(a, b)`` or ``ROW (a, b)``."""
    if isinstance(node, exp.Tuple):
        return list(node.expressions)
    if isinstance(node, exp.Anonymous) and isinstance(node.this, str) and node.this.lower() == "row":
        return list(node.expressions)
    return None


def row_of(node: exp.Expr) -> tuple[Operand | None, ...]:
    """The operands of ``(a, b)`` or ``ROW(a, b)``; any other expression is a row of one. See ``operand_of``."""
    entries = _entries(node)
    if entries is None and isinstance(node, exp.Paren):
        entries = [node.this]
    return (operand_of(node),) if entries is None else tuple(operand_of(entry) for entry in entries)


def assigned_column(node: exp.Expr) -> str:
    """The column that an assignment's left side is, or is part of."""
    while isinstance(node, (exp.Bracket, exp.Dot, exp.Paren)):
        node = node.this
    if isinstance(node, exp.Column):
        parts = node.parts
        return identifier_text(parts[0])
    return identifier_text(node)


def _list_slot(entries: Sequence[exp.Expr]) -> Operand | None:
    if len(entries) == 1 and isinstance(entries[0], exp.Literal) and entries[0].name.startswith(LIST_PREFIX):
        return Operand(OperandSource.LITERAL, int(entries[0].name.removeprefix(LIST_PREFIX)))
    return None


def operand_of(node: exp.Expr, *, arrays: bool = False) -> Operand | None:
    """The constant an expression is; None if it is no plain constant."""
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Literal):
        return Operand(OperandSource.LITERAL, int(node.name)) if node.name.isdecimal() else None
    if isinstance(node, exp.Parameter):
        number = node.this
        return Operand(OperandSource.PARAMETER, int(number.name) - 1) if isinstance(number, exp.Literal) else None
    if isinstance(node, exp.Neg):
        inner = operand_of(node.this)
        number = node.find(exp.Literal)
        if (
            inner is None
            or inner.source is not OperandSource.LITERAL
            or inner.negative
            or number is None
            or number.is_string
        ):
            return None
        return Operand(inner.source, inner.index, negative=True, cast=inner.cast)
    if type(node) is exp.Cast:
        inner, cast = operand_of(node.this), _type(node.args["to"])
        if inner is None or inner.cast is not None or cast is None or cast.endswith("[]") is not arrays:
            return None
        return Operand(inner.source, inner.index, inner.negative, cast)
    if isinstance(node, exp.Null):
        return Operand(OperandSource.NULL)
    if isinstance(node, exp.Boolean):
        return Operand(OperandSource.TRUE if node.this else OperandSource.FALSE)
    return None


def _type(node: exp.Expr) -> str | None:
    """A type's name as ``Operand.cast`` has it; None if a cast to it may change a constant's text."""
    if not isinstance(node, exp.DataType):  # pragma: no cover - every cast of the parser is to a DataType
        return None
    if node.this is exp.DType.ARRAY:
        inner = _type(node.expressions[0]) if len(node.expressions) == 1 else None
        return None if inner is None or inner.endswith("[]") else inner + "[]"
    return None if node.expressions else _TYPES.get(node.this)
