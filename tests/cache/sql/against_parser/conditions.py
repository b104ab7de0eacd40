"""Constants of a parse tree, and the conditions that make columns equal to them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from postgast import pg_query_pb2 as pb

Node = Any
Columns = tuple[tuple[str, ...] | None, tuple[str, ...]]
"""A qualifier and names of columns."""


class Constant(NamedTuple):
    """A constant as an expression has it."""

    source: str
    """``literal``, ``parameter``, ``null``, ``true`` or ``false``."""
    place: int = 0
    """A literal's place in the text, in bytes (where its minus sign is, if it has one); a parameter's number."""
    negative: bool = False
    cast: str | None = None
    """The type it is cast to, where that has no modifier."""


class ColumnEquality(NamedTuple):
    """``columns`` equal one of ``rows``, or an element of ``array``."""

    qualifier: tuple[str, ...] | None
    columns: tuple[str, ...]
    rows: tuple[tuple[Constant | None, ...], ...] = ()
    array: Constant | None = None

    def speaks_of(self, alias: str, schema: str | None, name: str) -> bool:
        """Its columns may be those of a relation, by the name under which that can be spoken of."""
        if self.qualifier is None:
            return True
        if len(self.qualifier) == 1:
            return self.qualifier == (alias,)
        return alias == name and self.qualifier == (schema, name)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def inner(node: Node) -> Node:
    """What is in a ``Node``; other messages are themselves."""
    if type(node) is not pb.Node:
        return node
    which = node.WhichOneof("node")
    return None if which is None else getattr(node, which)


def strings(nodes: Any) -> list[str]:
    """The texts of a list of ``String``; ``*`` for a star."""
    return ["*" if isinstance(one, pb.A_Star) else one.sval for one in map(inner, nodes)]


def constant(node: Node, *, arrays: bool = False) -> Constant | None:
    """The constant an expression is; None if it is another expression."""
    if isinstance(node, pb.ParamRef):
        return Constant("parameter", node.number)
    if isinstance(node, pb.A_Const):
        return _literal(node)
    if isinstance(node, pb.TypeCast):
        found, cast = constant(inner(node.arg)), type_name(node.type_name)
        if found is None or cast is None or found.cast is not None or cast.endswith("[]") is not arrays:
            return None
        return found._replace(cast=cast)
    if isinstance(node, pb.A_Expr) and node.kind == pb.AEXPR_OP and not node.HasField("lexpr"):
        found, sign = constant(inner(node.rexpr)), strings(node.name)[-1]
        if found is None or sign == "+":
            return found
        negative = sign == "-" and found.source == "literal" and found.cast is not None and not found.negative
        return found._replace(negative=True) if negative else None
    return None


def _literal(node: Node) -> Constant | None:
    if node.isnull:
        return Constant("null")
    kind = node.WhichOneof("val")
    if kind == "boolval":
        return Constant("true" if node.boolval.boolval else "false")
    if kind == "bsval":
        return None
    negative = (kind == "ival" and node.ival.ival < 0) or (kind == "fval" and node.fval.fval.startswith("-"))
    return Constant("literal", node.location, negative)


def type_name(node: Node) -> str | None:
    """A type's name, without pg_catalog; None if it has a modifier or several dimensions."""
    names = strings(node.names)
    if node.typmods or node.setof or node.pct_type or len(node.array_bounds) > 1:
        return None
    if len(names) == 2 and names[0] == "pg_catalog":
        names = names[1:]
    return None if len(names) != 1 else names[0] + ("[]" if node.array_bounds else "")


def row(node: Node) -> tuple[Constant | None, ...]:
    if isinstance(node, pb.RowExpr):
        return tuple(constant(inner(one)) for one in node.args)
    return (constant(node),)


def equalities(node: Node) -> Iterator[ColumnEquality]:
    """What one condition says of columns and constants."""
    if isinstance(node, pb.A_Expr) and strings(node.name)[-1:] == ["="]:
        left, right = inner(node.lexpr), inner(node.rexpr)
        if node.kind == pb.AEXPR_OP:
            yield from _equal(left, [right])
            yield from _equal(right, [left])
        elif node.kind == pb.AEXPR_IN:
            yield from _equal(left, [inner(one) for one in right.items] if isinstance(right, pb.List) else [])
        elif node.kind == pb.AEXPR_OP_ANY:
            yield from _any(left, right)


def conjuncts(condition: Node) -> Iterator[Node]:
    """The parts of the condition's top-level ANDs."""
    node = inner(condition)
    if isinstance(node, pb.BoolExpr) and node.boolop == pb.AND_EXPR:
        for one in node.args:
            yield from conjuncts(one)
    else:
        yield node


def equal_columns(node: Node) -> tuple[Columns, Columns] | None:
    """The columns of two relations that a condition equates with each other."""
    if not (isinstance(node, pb.A_Expr) and node.kind == pb.AEXPR_OP and strings(node.name)[-1:] == ["="]):
        return None
    left, right = _columns(inner(node.lexpr)), _columns(inner(node.rexpr))
    return (left, right) if left and right and len(left[1]) == len(right[1]) else None


def _equal(side: Node, entries: list[Node]) -> Iterator[ColumnEquality]:
    columns = _columns(side)
    if columns is not None and entries:
        rows = tuple(row(one) for one in entries)
        if all(len(one) == len(columns[1]) for one in rows):
            yield ColumnEquality(*columns, rows)


def _any(side: Node, array: Node) -> Iterator[ColumnEquality]:
    columns = _columns(side)
    if columns is not None and len(columns[1]) == 1:
        yield from element_of(columns, array)


def element_of(columns: Columns, array: Node) -> Iterator[ColumnEquality]:
    """The column equals an element of an array that is a constant, or is made of constants."""
    listed = inner(array.arg) if isinstance(array, pb.TypeCast) else array
    if isinstance(listed, pb.A_ArrayExpr):
        yield ColumnEquality(*columns, tuple((constant(inner(one)),) for one in listed.elements))
    elif (found := constant(array, arrays=True) or constant(array)) is not None:
        yield ColumnEquality(*columns, array=found)


def _columns(node: Node) -> Columns | None:
    entries = [inner(one) for one in node.args] if isinstance(node, pb.RowExpr) else [node]
    references = [strings(one.fields) if isinstance(one, pb.ColumnRef) else [] for one in entries]
    if not references or any(not one or one[-1] == "*" for one in references):
        return None
    qualifiers = {tuple(one[:-1]) or None for one in references}
    return (qualifiers.pop(), tuple(one[-1] for one in references)) if len(qualifiers) == 1 else None
