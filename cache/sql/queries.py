"""Reads one query or data-modifying statement with the SQL parser (sqlglot), which only this file and ``expressions``
know.

Whatever is not known for certain is refused with ``UnreadError``; ``binding`` then assumes the worst.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from cache.sql import canonical
from cache.sql.canonical import CALLED, CURRENT_OF
from cache.sql.expressions import (
    Level,
    arbiter,
    assigned_column,
    has_grouping_sets,
    identifier_text,
    is_join,
    listed_in,
    operand_of,
    relation_name,
    row_of,
    speaks_of,
)
from cache.sql.plans import Command, Reason
from cache.sql.statements import Conflict, Mention, Name, Shape, UnreadError, Verb, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cache.sql.lexer import Token
    from cache.sql.plans import Operand
    from cache.sql.statements import Rows

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of what it reads as a command; we never ask it to

_MODIFYING = (exp.Insert, exp.Update, exp.Delete, exp.Merge)
_QUERY = (exp.Select, exp.SetOperation, exp.Subquery)
# What a SELECT may consist of; anything else is another dialect's and was misread.
_QUERY_PARTS = ("order", "limit", "offset", "locks", "with_")
_SELECT_PARTS = frozenset(
    ("expressions", "distinct", "from_", "joins", "laterals", "where", "group", "having", "windows", "into")
).union(_QUERY_PARTS)
_SUBQUERY_PARTS = frozenset(("this", "alias", "joins", *_QUERY_PARTS))
_TABLE_PARTS = frozenset(["this", "alias", "db", "catalog", "joins", "only", "ordinality", "rows_from"])
_JOIN_PARTS = frozenset(["this", "side", "kind", "method", "on", "using"])
_INSERT_PARTS = frozenset(["with_", "this", "expression", "default", "conflict", "returning"])
_UPDATE_PARTS = frozenset(["with_", "this", "expressions", "from_", "where", "returning"])
_DELETE_PARTS = frozenset(["with_", "this", "using", "where", "returning"])
_MERGE_PARTS = frozenset(["with_", "this", "using", "on", "whens", "returning"])


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
            scope.update({identifier_text(cte.args["alias"].this): None for cte in clause.expressions})
        for cte in clause.expressions:
            name, body = identifier_text(cte.args["alias"].this), cte.this
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
        level = Level()
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
        if group is not None and has_grouping_sets(group):
            for mention in level.surfacing:
                mention.blocked = Reason.GROUPING_SETS
        into = node.args.get("into")
        if into is not None:
            self._created.append(relation_name(into.this))
        return level.surfacing

    def _item(self, node: exp.Expr, level: Level, scope: _Scope) -> None:
        """One item of a FROM clause, with the joins that hang on it."""
        if isinstance(node, (exp.Table, exp.Values)) and (listed := listed_in(node)) is not None:
            level.listed[listed[0]] = listed[1]
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

    def _table(self, node: exp.Table, level: Level, scope: _Scope) -> None:
        if not isinstance(node.this, exp.Identifier):
            # A function, or ROWS FROM.
            for part in (node.this, *(node.args.get("rows_from") or ())):
                if isinstance(part, exp.Anonymous):
                    self._function(part, node.args.get("db"), scope)
                elif part is not None:
                    self._expression(part, scope)
            return
        name = relation_name(node)
        alias = node.args.get("alias")
        visible = name.name if alias is None or alias.this is None else identifier_text(alias.this)
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

    def _parenthesised(self, node: exp.Subquery, level: Level, scope: _Scope) -> None:
        """A subquery in FROM, or a join in parentheses."""
        if isinstance(node.this, (*_QUERY, exp.Values)) and not is_join(node.this):
            level.add(self._in_parentheses(node, self._with(node, scope)))
            return
        first = len(level.direct)
        self._item(node.this, level, scope)
        if node.args.get("alias") is not None:
            for mention in level.direct[first:]:
                mention.renamed = True

    def _joins(self, joins: Sequence[exp.Join] | None, level: Level, scope: _Scope) -> None:
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
            write.old = speaks_of(returning, self._rows.old)
            write.new = speaks_of(returning, self._rows.new)
        self._writes.append(write)

    def _target(self, node: exp.Expr) -> Mention:
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            raise UnreadError("a write on something that is not a table")
        self._only(node, _TABLE_PARTS)
        name = relation_name(node)
        self._names.add(name)
        alias = node.args.get("alias")
        if alias is not None and alias.args.get("columns"):
            raise UnreadError("a target with column aliases")
        return Mention(name, name.name if alias is None else identifier_text(alias.this), [])

    def _insert(self, node: exp.Insert, scope: _Scope) -> Write:
        self._only(node, _INSERT_PARTS)
        target, columns = node.this, None
        if isinstance(target, exp.Schema):
            if not all(isinstance(column, exp.Identifier) for column in target.expressions):
                raise UnreadError("an INSERT column that is not a name")
            columns = tuple(identifier_text(column) for column in target.expressions)
            target = target.this
        mention = self._target(target)
        source = node.args.get("expression")
        rows: tuple[tuple[Operand | None, ...], ...] | None = None
        if isinstance(source, exp.Values):
            self._expressions(source, ("expressions",), scope)
            rows = tuple(row_of(entry) for entry in source.expressions)
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
            write.conflict_columns = arbiter(conflict)
        return write

    def _update(self, node: exp.Update, scope: _Scope) -> Write:
        self._only(node, _UPDATE_PARTS)
        mention = self._target(node.this)
        source = node.args.get("from_")
        assignments = self._assignments(node.expressions, scope)
        others = self._filtered(node, mention, [] if source is None else [source.this], scope)
        return Write(
            Verb.UPDATE, mention.name, fixes=tuple(mention.fixes), assignments=assignments, others=tuple(others)
        )

    def _delete(self, node: exp.Delete, scope: _Scope) -> Write:
        self._only(node, _DELETE_PARTS)
        mention = self._target(node.this)
        others = self._filtered(node, mention, node.args.get("using") or [], scope)
        return Write(Verb.DELETE, mention.name, fixes=tuple(mention.fixes), others=tuple(others))

    def _filtered(self, node: exp.Expr, target: Mention, sources: list[exp.Expr], scope: _Scope) -> list[Mention]:
        """Reads UPDATE's FROM or DELETE's USING and WHERE; what comes from elsewhere than the target."""
        level = Level()
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
        level = Level()
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
                values = row_of(node.expression)
                if len(values) != len(columns):
                    values = (None,) * len(columns)
                found += [(assigned_column(column), value) for column, value in zip(columns, values, strict=True)]
            elif isinstance(target, exp.Column) and target.args.get("table") is None:
                found.append((assigned_column(target), operand_of(node.expression)))
            else:
                found.append((assigned_column(target), None))  # an element of an array, a field of a composite
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
            qualifier = identifier_text(schema) if isinstance(schema, exp.Identifier) else None
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
