"""From SQL text to plans. The only file that knows the SQL parser (sqlglot).

``Statements`` remembers plans, see ``memo``. ``read`` turns the tokens of one query or data-modifying statement into a
``Shape``; whatever it does not know for certain it refuses with ``UnreadError``, and ``binding`` then assumes the
worst.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from cache import canonical, memo
from cache.canonical import CALLED, CURRENT_OF, LIST
from cache.commands import Rows, UnreadError
from cache.plans import Command, Operand, Reason, Source
from cache.shapes import Conflict, Fix, Mention, Name, Shape, Verb, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cache.lexer import Token

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of what it reads as a command; we never ask it to

_TYPES = {
    exp.DType.INT: "int4",
    exp.DType.BIGINT: "int8",
    exp.DType.SMALLINT: "int2",
    exp.DType.TEXT: "text",
    exp.DType.VARCHAR: "varchar",
    exp.DType.UUID: "uuid",
    exp.DType.BOOLEAN: "bool",
    exp.DType.JSON: "json",
}
_MODIFYING = (exp.Insert, exp.Update, exp.Delete, exp.Merge)
_QUERY = (exp.Select, exp.SetOperation, exp.Subquery)
_GROUPINGS = (exp.Rollup, exp.Cube, exp.GroupingSets)
# What a SELECT may consist of; anything else is another dialect's and was misread.
_QUERY_PARTS = ("order", "limit", "offset", "locks", "with_")
_SELECT_PARTS = frozenset(
    ("expressions", "distinct", "from_", "joins", "laterals", "where", "group", "having", "windows", "into")
).union(_QUERY_PARTS)
_SUBQUERY_PARTS = frozenset(("this", "alias", "joins", *_QUERY_PARTS))
_TABLE_PARTS = frozenset(["this", "alias", "db", "catalog", "joins", "only", "ordinality", "rows_from"])
_JOIN_PARTS = frozenset(["this", "side", "kind", "method", "on", "using"])
_INSERT_PARTS = frozenset(["with_", "this", "expression", "default", "conflict", "returning"])
_MERGE_PARTS = frozenset(["with_", "this", "using", "on", "whens", "returning"])
_MAX_MENTIONS = 500


class Statements(memo.Memo):
    """What SQL texts mean, remembered: see ``memo.Memo``."""

    def __init__(self, size: int) -> None:
        super().__init__(size, read)


def read(found: Sequence[Token], rows: Rows) -> Shape:
    """The shape of one SELECT, VALUES, TABLE, WITH, INSERT, UPDATE, DELETE or MERGE.

    Raises:
        UnreadError: it cannot be read for certain.
    """
    try:
        parsed = sqlglot.parse(canonical.write(found), read="postgres")
        if len(parsed) != 1 or parsed[0] is None:
            raise UnreadError("not one statement")
        return _Reader(rows).shape(parsed[0])
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        # The parser promises nothing about what it raises on text that it was not made for.
        raise UnreadError(str(error)) from error


class _Level:
    """The FROM clause of one query level."""

    __slots__ = ("conditions", "direct", "merged", "surfacing")

    def __init__(self) -> None:
        self.direct: list[Mention] = []
        """Relations named in this FROM clause itself."""
        self.surfacing: list[Mention] = []
        """The same, and what comes out of its subqueries and CTEs."""
        self.conditions: list[exp.Expr] = []
        """What every row meets: WHERE and the ON of inner joins."""
        self.merged = False
        """USING or NATURAL: an unqualified column may be of two relations."""

    def add(self, mentions: Iterable[Mention]) -> None:
        for mention in mentions:
            if mention in self.surfacing:
                mention.uses = 2
            else:
                self.surfacing.append(mention)
        if len(self.surfacing) > _MAX_MENTIONS:
            raise UnreadError("too many relations")

    def attach(self) -> None:
        """Gives each relation the conditions on its columns."""
        for condition in _conjuncts(self.conditions):
            found = _fix(condition)
            if found is None:
                continue
            qualifier, schema, fix = found
            for mention in self.direct:
                if qualifier is None:
                    matches = not self.merged
                elif schema is not None:
                    matches = mention.name == Name(schema, qualifier) and mention.alias == qualifier
                else:
                    matches = mention.alias == qualifier
                if matches and not mention.renamed:
                    mention.fixes.append(fix)


_Scope = dict[str, "list[Mention] | None"]
"""The CTEs that can be named, with the relations that come out of each; None while one is being read."""


class _Reader:
    """Reads one statement. Lists grow in the order of the text."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._names: set[Name] = set()
        self._functions: set[Name] = set()
        self._writes: list[Write] = []
        self._created: list[Name] = []
        self._open: set[str] = set()
        """The CTEs whose bodies are being read."""

    def shape(self, node: exp.Expr) -> Shape:
        mentions: list[Mention] = []
        if isinstance(node, _MODIFYING):
            self._write(node, {}, counted=True)
        else:
            mentions = self._query(node, {})
        return Shape(
            Command.NONE,
            mentions=tuple(mentions),
            names=frozenset(self._names),
            functions=frozenset(self._functions),
            writes=tuple(self._writes),
            created=tuple(self._created),
        )

    # Queries

    def _query(self, node: exp.Expr, scope: _Scope) -> list[Mention]:
        """Reads a query; the relations whose columns may be columns of its result."""
        scope = self._with(node, scope)
        if isinstance(node, exp.Select):
            return self._select(node, scope)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, scope)
        if isinstance(node, exp.Subquery):
            if node.args.get("joins"):
                raise UnreadError("a join in parentheses for a query")
            return self._in_parentheses(node, scope)
        if isinstance(node, exp.Values):
            self._expressions(node, ("expressions", "order", "limit", "offset"), scope)
            return []
        raise UnreadError(f"a query that is a {type(node).__name__}")

    def _in_parentheses(self, node: exp.Subquery, scope: _Scope) -> list[Mention]:
        """Reads a subquery, but not the joins that may hang on it."""
        self._only(node, _SUBQUERY_PARTS)
        if not isinstance(node.this, (*_QUERY, exp.Values)):
            raise UnreadError("a join in parentheses for a query")
        self._expressions(node, ("order", "limit", "offset"), scope)
        return self._query(node.this, scope)

    def _with(self, node: exp.Expr, scope: _Scope) -> _Scope:
        clause = node.args.get("with_")
        if clause is None:
            return scope
        scope = dict(scope)
        if clause.args.get("recursive"):
            scope.update({_text(cte.args["alias"].this): None for cte in clause.expressions})
        for cte in clause.expressions:
            name, body = _text(cte.args["alias"].this), cte.this
            if isinstance(body, _MODIFYING):
                self._write(body, scope, counted=False)
                scope[name] = []
                continue
            opened = name not in self._open
            self._open.add(name)
            scope[name] = self._query(body, scope)
            if opened:
                self._open.discard(name)
        return scope

    def _set_operation(self, node: exp.SetOperation, scope: _Scope) -> list[Mention]:
        mentions: list[Mention] = []
        left: exp.Expr = node
        while isinstance(left, exp.SetOperation):  # a chain of UNION leans to the left
            if left is not node:
                scope = self._with(left, scope)
            self._expressions(left, ("order", "limit", "offset"), scope)
            mentions += self._query(left.expression, scope)
            left = left.this
        mentions += self._query(left, scope)
        for mention in mentions:
            mention.blocked = Reason.SET_OPERATION
        return mentions

    def _select(self, node: exp.Select, scope: _Scope) -> list[Mention]:
        self._only(node, _SELECT_PARTS)
        level = _Level()
        source = node.args.get("from_")
        if source is not None:
            self._item(source.this, level, scope)
        self._joins(node.args.get("joins"), level, scope)
        for lateral in node.args.get("laterals") or ():
            self._item(lateral, level, scope)
        where = node.args.get("where")
        if where is not None:
            level.conditions.append(where.this)
        self._expressions(
            node, ("expressions", "distinct", "where", "group", "having", "windows", "order", "limit", "offset"), scope
        )
        level.attach()
        group = node.args.get("group")
        if group is not None and _grouping_sets(group):
            for mention in level.surfacing:
                mention.blocked = Reason.GROUPING_SETS
        into = node.args.get("into")
        if into is not None:
            self._created.append(_name(into.this))
        return level.surfacing

    def _item(self, node: exp.Expr, level: _Level, scope: _Scope) -> None:
        """One item of a FROM clause, with the joins that hang on it."""
        if isinstance(node, exp.Table):
            self._only(node, _TABLE_PARTS)
            self._table(node, level, scope)
        elif isinstance(node, exp.Subquery):
            self._parenthesised(node, level, scope)
        elif isinstance(node, exp.Lateral):
            inner = node.this
            if isinstance(inner, exp.Subquery):
                level.add(self._query(inner, scope))
            else:
                self._expression(inner, scope)
        elif isinstance(node, exp.Values):
            self._query(node, scope)
        else:
            raise UnreadError(f"FROM holds a {type(node).__name__}")
        self._joins(node.args.get("joins"), level, scope)

    def _table(self, node: exp.Table, level: _Level, scope: _Scope) -> None:
        if not isinstance(node.this, exp.Identifier):
            # A function, or ROWS FROM.
            for part in (node.this, *(node.args.get("rows_from") or ())):
                if isinstance(part, exp.Anonymous):
                    self._function(part, node.args.get("db"), scope)
                elif part is not None:
                    self._expression(part, scope)
            return
        name = _name(node)
        alias = node.args.get("alias")
        visible = name.name if alias is None or alias.this is None else _text(alias.this)
        if name.schema is None and name.name in scope:
            mentions = scope[name.name]
            if mentions is not None:
                level.add(mentions)
            elif name.name not in self._open:
                raise UnreadError("WITH RECURSIVE out of order")
            # Else it speaks of itself, which only a set operation can.
            return
        self._names.add(name)
        renamed = alias is not None and bool(alias.args.get("columns"))
        mention = Mention(name, visible, [], renamed=renamed)
        level.direct.append(mention)
        level.add([mention])

    def _parenthesised(self, node: exp.Subquery, level: _Level, scope: _Scope) -> None:
        """A subquery in FROM, or a join in parentheses."""
        if isinstance(node.this, (*_QUERY, exp.Values)) and not _is_join(node.this):
            level.add(self._in_parentheses(node, self._with(node, scope)))
            return
        first = len(level.direct)
        self._item(node.this, level, scope)
        if node.args.get("alias") is not None:
            for mention in level.direct[first:]:
                mention.renamed = True

    def _joins(self, joins: Sequence[exp.Join] | None, level: _Level, scope: _Scope) -> None:
        for join in joins or ():
            self._only(join, _JOIN_PARTS)
            side, kind = str(join.args.get("side") or "").upper(), str(join.args.get("kind") or "").upper()
            method = str(join.args.get("method") or "").upper()
            known = side in ("", "LEFT", "RIGHT", "FULL") and kind in ("", "INNER", "CROSS", "OUTER")
            if not known or method not in ("", "NATURAL"):
                raise UnreadError(f"a {method} {side} {kind} join")
            before = len(level.surfacing)
            if side in ("RIGHT", "FULL"):
                for mention in level.surfacing:
                    mention.nullable = True
            nested = len(level.conditions)
            self._item(join.this, level, scope)
            if side in ("LEFT", "FULL"):
                for mention in level.surfacing[before:]:
                    mention.nullable = True
            if side:
                del level.conditions[nested:]
            if method or join.args.get("using"):
                level.merged = True
            condition = join.args.get("on")
            if condition is not None:
                self._expression(condition, scope)
                if not side:
                    level.conditions.append(condition)

    # Data-modifying statements

    def _write(self, node: exp.Expr, scope: _Scope, *, counted: bool) -> None:
        scope = self._with(node, scope)
        if isinstance(node, exp.Insert):
            write = self._insert(node, scope)
        elif isinstance(node, exp.Update):
            write = self._update(node, scope)
        elif isinstance(node, exp.Delete):
            write = self._delete(node, scope)
        else:
            assert isinstance(node, exp.Merge)
            write = self._merge(node, scope)
        write.counted = counted
        returning = node.args.get("returning")
        if returning is not None:
            self._expressions(returning, ("expressions",), scope)
            write.returning = True
            write.old = _speaks_of(returning, self._rows.old)
            write.new = _speaks_of(returning, self._rows.new)
        self._writes.append(write)

    def _target(self, node: exp.Expr) -> Mention:
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            raise UnreadError("a write on something that is not a table")
        self._only(node, _TABLE_PARTS)
        name = _name(node)
        self._names.add(name)
        alias = node.args.get("alias")
        if alias is not None and alias.args.get("columns"):
            raise UnreadError("a target with column aliases")
        return Mention(name, name.name if alias is None else _text(alias.this), [])

    def _insert(self, node: exp.Insert, scope: _Scope) -> Write:
        self._only(node, _INSERT_PARTS)
        target, columns = node.this, None
        if isinstance(target, exp.Schema):
            if not all(isinstance(column, exp.Identifier) for column in target.expressions):
                raise UnreadError("an INSERT column that is not a name")
            columns = tuple(_text(column) for column in target.expressions)
            target = target.this
        mention = self._target(target)
        source = node.args.get("expression")
        rows: tuple[tuple[Operand | None, ...], ...] | None = None
        if isinstance(source, exp.Values):
            self._expressions(source, ("expressions",), scope)
            rows = tuple(_row(entry) for entry in source.expressions)
        elif source is not None:
            self._query(source, scope)
        elif node.args.get("default"):
            columns, rows = (), ((),)
        else:
            raise UnreadError("an INSERT of nothing")
        write = Write(Verb.INSERT, mention.name, columns=columns, rows=rows)
        conflict = node.args.get("conflict")
        if conflict is not None:
            action = conflict.args["action"].name.upper()
            if action not in ("DO NOTHING", "DO UPDATE"):
                raise UnreadError(f"ON CONFLICT {action}")
            write.conflict = Conflict.UPDATE if action == "DO UPDATE" else Conflict.NOTHING
            write.assignments = self._assignments(conflict.expressions, scope)
            self._expressions(conflict, ("conflict_keys", "where", "index_predicate"), scope)
            write.conflict_columns = _arbiter(conflict)
        return write

    def _update(self, node: exp.Update, scope: _Scope) -> Write:
        self._only(node, frozenset(["with_", "this", "expressions", "from_", "where", "returning"]))
        mention = self._target(node.this)
        source = node.args.get("from_")
        assignments = self._assignments(node.expressions, scope)
        others = self._filtered(node, mention, [] if source is None else [source.this], scope)
        return Write(
            Verb.UPDATE, mention.name, fixes=tuple(mention.fixes), assignments=assignments, others=tuple(others)
        )

    def _delete(self, node: exp.Delete, scope: _Scope) -> Write:
        self._only(node, frozenset(["with_", "this", "using", "where", "returning"]))
        mention = self._target(node.this)
        others = self._filtered(node, mention, node.args.get("using") or [], scope)
        return Write(Verb.DELETE, mention.name, fixes=tuple(mention.fixes), others=tuple(others))

    def _filtered(self, node: exp.Expr, target: Mention, sources: list[exp.Expr], scope: _Scope) -> list[Mention]:
        """Reads UPDATE's FROM or DELETE's USING and WHERE; what comes from elsewhere than the target."""
        level = _Level()
        for source in sources:
            self._item(source, level, scope)
        others = list(level.surfacing)
        level.direct.append(target)
        where = node.args.get("where")
        if where is not None:
            self._expression(where.this, scope)
            level.conditions.append(where.this)
        level.attach()
        return others

    def _merge(self, node: exp.Merge, scope: _Scope) -> Write:
        self._only(node, _MERGE_PARTS)
        mention = self._target(node.this)
        level = _Level()
        self._item(node.args["using"], level, scope)
        self._expression(node.args["on"], scope)
        assignments: list[tuple[str, Operand | None]] = []
        deletes = False
        for when in node.args["whens"].expressions:
            self._expressions(when, ("condition",), scope)
            action = when.args["then"]
            if isinstance(action, exp.Update):
                assignments += self._assignments(action.expressions, scope)
            elif isinstance(action, exp.Insert):
                self._expressions(action, ("expression",), scope)
            elif action.name.upper() == "DELETE":
                deletes = True
            elif action.name.upper() not in ("DO NOTHING", ""):
                raise UnreadError("an unknown MERGE action")
        return Write(
            Verb.MERGE,
            mention.name,
            assignments=tuple(assignments),
            others=tuple(level.surfacing),
            deletes=deletes,
        )

    def _assignments(self, nodes: Sequence[exp.Expr], scope: _Scope) -> tuple[tuple[str, Operand | None], ...]:
        found: list[tuple[str, Operand | None]] = []
        for node in nodes:
            if not isinstance(node, exp.EQ):
                raise UnreadError("SET with something that is not an assignment")
            self._expression(node.expression, scope)
            target = node.this
            if isinstance(target, exp.Tuple) or (isinstance(target, exp.Paren) and isinstance(target.this, exp.Column)):
                columns = target.expressions if isinstance(target, exp.Tuple) else [target.this]
                values = _row(node.expression)
                if len(values) != len(columns):
                    values = (None,) * len(columns)
                found += [(_assigned(column), value) for column, value in zip(columns, values, strict=True)]
            elif isinstance(target, exp.Column) and target.args.get("table") is None:
                found.append((_assigned(target), _operand(node.expression)))
            else:
                found.append((_assigned(target), None))  # an element of an array, a field of a composite
        return tuple(found)

    # Expressions

    def _expressions(self, node: exp.Expr, parts: Iterable[str], scope: _Scope) -> None:
        for part in parts:
            value = node.args.get(part)
            for entry in value if isinstance(value, list) else (value,):
                if isinstance(entry, exp.Expr):
                    self._expression(entry, scope)

    def _expression(self, node: exp.Expr, scope: _Scope) -> None:
        """Notes the functions an expression calls and reads its subqueries, whose columns never reach the result."""
        waiting: list[exp.Expr] = [node]
        while waiting:
            current = waiting.pop()
            if isinstance(current, _QUERY):
                self._query(current, scope)
                continue
            if isinstance(current, (*_MODIFYING, exp.Command, exp.Table)):
                raise UnreadError(f"a {type(current).__name__} within an expression")
            if isinstance(current, exp.Anonymous):
                parent = current.parent
                schema = parent.this if isinstance(parent, exp.Dot) and parent.expression is current else None
                self._function(current, schema, scope)
                continue
            waiting.extend(current.iter_expressions())

    def _function(self, node: exp.Anonymous, schema: Any, scope: _Scope) -> None:
        if isinstance(node.this, exp.Identifier):
            qualifier = _text(schema) if isinstance(schema, exp.Identifier) else None
            if schema is not None and qualifier is None:
                raise UnreadError("a function of something that is not a schema")
            name = node.this.this.removeprefix(CALLED)
            if CALLED + name != CURRENT_OF:
                self._functions.add(Name(qualifier, name))
        self._expressions(node, ("expressions",), scope)

    def _only(self, node: exp.Expr, known: frozenset[str]) -> None:
        for part, value in node.args.items():
            if value and part not in known:
                raise UnreadError(f"{type(node).__name__} with {part}")


def _text(identifier: exp.Expr) -> str:
    if not isinstance(identifier, exp.Identifier):
        raise UnreadError("a name that is not an identifier")
    return str(identifier.this).removeprefix(CALLED)


def _name(table: exp.Expr) -> Name:
    schema = table.args.get("db")
    return Name(None if schema is None else _text(schema), _text(table.this))


def _is_join(node: exp.Expr) -> bool:
    """A subquery that is the first item of a join in parentheses: ``((SELECT …) AS a JOIN b …)``."""
    return isinstance(node, exp.Subquery) and (bool(node.args.get("joins")) or node.args.get("alias") is not None)


def _grouping_sets(group: exp.Expr) -> bool:
    if any(group.args.get(part) for part in ("rollup", "cube", "grouping_sets", "totals")):
        return True
    return any(isinstance(entry, _GROUPINGS) or entry.find(*_GROUPINGS) for entry in group.expressions)


def _arbiter(conflict: exp.Expr) -> frozenset[str] | None:
    """The columns of ON CONFLICT (a, b)."""
    names: set[str] = set()
    for key in conflict.args.get("conflict_keys") or ():
        column = key.this if isinstance(key, exp.Ordered) else key
        if not isinstance(column, exp.Column):
            return None
        names.add(_text(column.this))
    return frozenset(names) or None


def _speaks_of(returning: exp.Expr, names: frozenset[str]) -> bool:
    for column in returning.find_all(exp.Column):
        table = column.args.get("table")
        if (_text(table) if table is not None else column.name) in names:
            return True
    return False


def _conjuncts(conditions: Sequence[exp.Expr]) -> Iterator[exp.Expr]:
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


def _fix(node: exp.Expr) -> tuple[str | None, str | None, Fix] | None:
    """The qualifier, its schema, and the fix, if the condition equates columns of one relation with constants."""
    if isinstance(node, exp.In):
        columns = _columns(node.this)
        if columns is None or node.args.get("query") is not None or node.args.get("unnest") is not None:
            return None
        array = _list_slot(node.expressions)
        if array is not None:
            return (*columns[:2], Fix(columns[2], array=array)) if len(columns[2]) == 1 else None
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
) -> tuple[str | None, str | None, Fix] | None:
    qualifier, schema, names = columns
    rows = tuple(_row(entry) if len(names) > 1 else (_operand(entry),) for entry in entries)
    if not rows or any(len(row) != len(names) for row in rows):
        return None
    return qualifier, schema, Fix(names, rows)


def _any(
    columns: tuple[str | None, str | None, tuple[str, ...]], node: exp.Expr
) -> tuple[str | None, str | None, Fix] | None:
    while isinstance(node, exp.Paren):
        node = node.this
    inner = node.this if type(node) is exp.Cast else node
    if isinstance(inner, exp.Array) and (inner is node or _type(node.args["to"]) is not None):
        return _fixed(columns, inner.expressions)
    operand = _operand(node, arrays=True)
    if operand is None or operand.source not in (Source.LITERAL, Source.PARAMETER):
        return None
    return (*columns[:2], Fix(columns[2], array=operand))


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
        qualifiers.add((None if table is None else _text(table), None if schema is None else _text(schema)))
        names.append(_text(entry.this))
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


def _row(node: exp.Expr) -> tuple[Operand | None, ...]:
    entries = _entries(node)
    if entries is None and isinstance(node, exp.Paren):
        entries = [node.this]
    return (_operand(node),) if entries is None else tuple(_operand(entry) for entry in entries)


def _assigned(node: exp.Expr) -> str:
    """The column that an assignment's left side is, or is part of."""
    while isinstance(node, (exp.Bracket, exp.Dot, exp.Paren)):
        node = node.this
    if isinstance(node, exp.Column):
        parts = node.parts
        return _text(parts[0])
    return _text(node)


def _list_slot(entries: Sequence[exp.Expr]) -> Operand | None:
    if len(entries) == 1 and isinstance(entries[0], exp.Literal) and entries[0].name.startswith(LIST):
        return Operand(Source.LITERAL, int(entries[0].name.removeprefix(LIST)))
    return None


def _operand(node: exp.Expr, *, arrays: bool = False) -> Operand | None:
    """The constant an expression is; None if it is no plain constant."""
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Literal):
        return Operand(Source.LITERAL, int(node.name)) if node.name.isdecimal() else None
    if isinstance(node, exp.Parameter):
        number = node.this
        return Operand(Source.PARAMETER, int(number.name) - 1) if isinstance(number, exp.Literal) else None
    if isinstance(node, exp.Neg):
        inner = _operand(node.this)
        number = node.find(exp.Literal)
        if inner is None or inner.source is not Source.LITERAL or inner.negative or number is None or number.is_string:
            return None
        return Operand(inner.source, inner.index, negative=True, cast=inner.cast)
    if type(node) is exp.Cast:
        inner, cast = _operand(node.this), _type(node.args["to"])
        if inner is None or inner.cast is not None or cast is None or cast.endswith("[]") is not arrays:
            return None
        return Operand(inner.source, inner.index, inner.negative, cast)
    if isinstance(node, exp.Null):
        return Operand(Source.NULL)
    if isinstance(node, exp.Boolean):
        return Operand(Source.TRUE if node.this else Source.FALSE)
    return None


def _type(node: exp.Expr) -> str | None:
    """A type's name as ``Operand.cast`` has it; None for one that may change a value, or has a modifier."""
    if not isinstance(node, exp.DataType):
        return None
    if node.this is exp.DType.ARRAY:
        inner = _type(node.expressions[0]) if len(node.expressions) == 1 else None
        return None if inner is None or inner.endswith("[]") else inner + "[]"
    return None if node.expressions else _TYPES.get(node.this)
