"""Reads one query or data-modifying statement with the SQL parser (sqlglot).

Only this module and ``expressions`` know that parser. A part of its tree that is not known here is refused with
``UnreadError``: the parser has misread the text, or the text may write more than is seen.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from cache.sql import canonical
from cache.sql.canonical import CALL_PREFIX, CURRENT_OF
from cache.sql.expressions import (
    Condition,
    FromClause,
    assigned_column,
    conflict_columns,
    constant_list_in,
    has_grouping_sets,
    identifier_text,
    is_join,
    operand_of,
    refers_to,
    relation_name,
    row_of,
)
from cache.sql.plans import Command, Reason
from cache.sql.statements import Conflict, Name, Statement, TableReference, UnreadError, Verb, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cache.sql.lexer import Token
    from cache.sql.plans import Operand
    from cache.sql.statements import ReturningAliases

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of commands it does not read, which it is never given

_MODIFYING = (exp.Insert, exp.Update, exp.Delete, exp.Merge)
_QUERY = (exp.Select, exp.SetOperation, exp.Subquery)
# The parts of PostgreSQL's grammar; a tree with any other part was misread as another dialect's.
_QUERY_PARTS = ("order", "limit", "offset", "locks", "with_")
_SELECT_PARTS = frozenset(
    ("expressions", "distinct", "from_", "joins", "where", "group", "having", "windows", "into")
).union(_QUERY_PARTS)
_SUBQUERY_PARTS = frozenset(("this", "alias", "joins", *_QUERY_PARTS))
_TABLE_PARTS = frozenset(["this", "alias", "db", "catalog", "joins", "only", "ordinality", "rows_from"])
_JOIN_PARTS = frozenset(["this", "side", "kind", "method", "on", "using"])
_CALLED_BY_KEY_WORDS: dict[type[exp.Expr], str] = {
    exp.Collation: "collation",
    exp.Overlay: "overlay",
    exp.Substring: "substring",
}
"""Nodes of their own that are calls of functions, which may be the user's."""
_CONSTRUCTS = canonical.word_set(
    "all any json_array json_arrayagg json_exists json_query json_scalar row some treat xmlconcat xmlforest"
)
"""What the parser takes for functions although PostgreSQL's grammar does not: no function is called by these words."""
_INSERT_PARTS = frozenset(["with_", "this", "expression", "default", "conflict", "returning"])
_UPDATE_PARTS = frozenset(["with_", "this", "expressions", "from_", "where", "returning"])
_DELETE_PARTS = frozenset(["with_", "this", "using", "where", "returning"])
_MERGE_PARTS = frozenset(["with_", "this", "using", "on", "whens", "returning"])


def read_query(tokens: Sequence[Token], aliases: ReturningAliases) -> Statement:
    """One SELECT, VALUES, TABLE, WITH, INSERT, UPDATE, DELETE or MERGE.

    Raises:
        UnreadError: what it means is not certain.
    """
    text = canonical.render_for_parser(tokens)
    try:
        parsed = sqlglot.parse(text, read="postgres")
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        # The parser promises nothing about what it raises on text that it was not made for.
        raise UnreadError(str(error)) from error
    if len(parsed) != 1 or parsed[0] is None:
        raise UnreadError("not one statement")
    if _count_names(parsed[0]) != text.count('"') // 2:
        raise UnreadError("the parser has lost a name, and what stood around it, or has made one")
    return _QueryReader(aliases).statement(parsed[0])


def _count_names(parsed: exp.Expr) -> int:
    """How many quoted names the statement was parsed from; a quote within a name, which is doubled, counts as one."""
    count = 0
    for node in parsed.walk():
        if isinstance(node, exp.Identifier):
            count += 1 + node.name.count('"') if node.args.get("quoted") else 0
        elif isinstance(node, (exp.Extract, exp.IntervalSpan, exp.Kwarg)):
            count += 1  # EXTRACT's field, the second one of INTERVAL … DAY TO SECOND, and an argument's name
    return count


_Ctes = dict[str, "list[TableReference] | None"]
"""The CTEs that can be named, with the relations that each shows columns of; None while it is being read."""


class _QueryReader:
    """Walks the tree of one statement and collects what it says, in the order of the text."""

    def __init__(self, aliases: ReturningAliases) -> None:
        self._aliases = aliases
        self._names: set[Name] = set()
        self._functions: set[Name] = set()
        self._writes: list[Write] = []
        self._created: list[Name] = []
        self._open: set[str] = set()
        """The CTEs whose bodies are being read."""

    def statement(self, node: exp.Expr) -> Statement:
        references: list[TableReference] = []
        if isinstance(node, _MODIFYING):
            self._write(node, {}, counted=True)
        else:
            references = self._query(node, {})
        return Statement(
            Command.NONE,
            references=tuple(references),
            names=frozenset(self._names),
            functions=frozenset(self._functions),
            writes=tuple(self._writes),
            created=tuple(self._created),
        )

    # Queries

    def _query(self, node: exp.Expr, ctes: _Ctes) -> list[TableReference]:
        """Read a query, and return the relations whose columns may be columns of its result."""
        ctes = self._with(node, ctes)
        if isinstance(node, exp.Select):
            return self._select(node, ctes)
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, ctes)
        if isinstance(node, exp.Subquery):
            if node.args.get("joins"):
                raise UnreadError("a join in parentheses for a query")
            return self._in_parentheses(node, ctes)
        if isinstance(node, exp.Values):
            self._expressions(node, ("expressions", "order", "limit", "offset"), ctes)
            return []
        raise UnreadError(f"a query that is a {type(node).__name__}")

    def _in_parentheses(self, node: exp.Subquery, ctes: _Ctes) -> list[TableReference]:
        """Reads a subquery, but not the joins that may hang on it."""
        self._only(node, _SUBQUERY_PARTS)
        if not isinstance(node.this, (*_QUERY, exp.Values)):
            raise UnreadError("a join in parentheses for a query")
        self._expressions(node, ("order", "limit", "offset"), ctes)
        return self._query(node.this, ctes)

    def _with(self, node: exp.Expr, ctes: _Ctes) -> _Ctes:
        clause = node.args.get("with_")
        if clause is None:
            return ctes
        ctes = dict(ctes)
        if clause.args.get("recursive"):
            ctes.update({identifier_text(cte.args["alias"].this): None for cte in clause.expressions})
        for cte in clause.expressions:
            name, body = identifier_text(cte.args["alias"].this), cte.this
            if isinstance(body, _MODIFYING):
                self._write(body, ctes, counted=False)
                ctes[name] = []
                continue
            opened = name not in self._open
            self._open.add(name)
            ctes[name] = self._query(body, ctes)
            if opened:
                self._open.discard(name)
        return ctes

    def _set_operation(self, node: exp.SetOperation, ctes: _Ctes) -> list[TableReference]:
        references: list[TableReference] = []
        left: exp.Expr = node
        while isinstance(left, exp.SetOperation):  # a chain of UNION leans to the left
            if left is not node:
                ctes = self._with(left, ctes)
            self._expressions(left, ("order", "limit", "offset"), ctes)
            references += self._query(left.expression, ctes)
            left = left.this
        references += self._query(left, ctes)
        for reference in references:
            reference.no_fill = Reason.SET_OPERATION
        return references

    def _select(self, node: exp.Select, ctes: _Ctes) -> list[TableReference]:
        self._only(node, _SELECT_PARTS)
        clause = FromClause()
        source = node.args.get("from_")
        if source is not None:
            self._item(source.this, clause, ctes)
        self._joins(node.args.get("joins"), clause, ctes, 0)
        where = node.args.get("where")
        if where is not None:
            clause.conditions.append(Condition(where.this))
        self._expressions(
            node, ("expressions", "distinct", "where", "group", "having", "windows", "order", "limit", "offset"), ctes
        )
        clause.attach_equalities()
        group = node.args.get("group")
        if group is not None and has_grouping_sets(group):
            for reference in clause.visible:
                reference.no_fill = Reason.GROUPING_SETS
        into = node.args.get("into")
        if into is not None:
            self._created.append(relation_name(into.this))
        return clause.visible

    def _item(self, node: exp.Expr, clause: FromClause, ctes: _Ctes) -> None:
        """One item of a FROM clause, with the joins that hang on it."""
        first = len(clause.named)
        if isinstance(node, (exp.Table, exp.Values)) and (found := constant_list_in(node)) is not None:
            clause.constant_lists[found[0]] = found[1]
        if isinstance(node, exp.Table):
            self._only(node, _TABLE_PARTS)
            self._table(node, clause, ctes)
        elif isinstance(node, exp.Subquery):
            self._parenthesised(node, clause, ctes)
        elif isinstance(node, exp.Lateral):
            inner = node.this
            if isinstance(inner, exp.Subquery):
                clause.add(self._query(inner, ctes))
            else:
                self._expression(inner, ctes)
        elif isinstance(node, exp.Values):
            self._query(node, ctes)
        else:
            raise UnreadError(f"FROM holds a {type(node).__name__}")
        self._joins(node.args.get("joins"), clause, ctes, first)

    def _table(self, node: exp.Table, clause: FromClause, ctes: _Ctes) -> None:
        if not isinstance(node.this, exp.Identifier):
            # A function, or ROWS FROM.
            for part in (node.this, *(node.args.get("rows_from") or ())):
                if isinstance(part, exp.Anonymous):
                    self._function(part, node.args.get("db"), ctes)
                elif part is not None:
                    self._expression(part, ctes)
            return
        name = relation_name(node)
        alias = node.args.get("alias")
        visible = name.name if alias is None or alias.this is None else identifier_text(alias.this)
        if name.schema is None and name.name in ctes:
            references = ctes[name.name]
            if references is not None:
                clause.add(references)
            elif name.name not in self._open:
                raise UnreadError("WITH RECURSIVE out of order")
            # Otherwise it is the CTE's reference to itself, within a set operation, whose columns fill nothing.
            return
        self._names.add(name)
        renamed = alias is not None and bool(alias.args.get("columns"))
        reference = TableReference(name, visible, [], renamed=renamed)
        clause.named.append(reference)
        clause.add([reference])

    def _parenthesised(self, node: exp.Subquery, clause: FromClause, ctes: _Ctes) -> None:
        """A subquery in FROM, or a join in parentheses."""
        if isinstance(node.this, (*_QUERY, exp.Values)) and not is_join(node.this):
            clause.add(self._in_parentheses(node, self._with(node, ctes)))
            return
        first = len(clause.named)
        self._item(node.this, clause, ctes)
        if node.args.get("alias") is not None:
            for reference in clause.named[first:]:
                reference.renamed = True

    def _joins(self, joins: Sequence[exp.Join] | None, clause: FromClause, ctes: _Ctes, first: int) -> None:
        """Reads joins; ``clause.named[first:]`` are the relations of their left side."""
        for join in joins or ():
            self._only(join, _JOIN_PARTS)
            side, kind = str(join.args.get("side") or "").upper(), str(join.args.get("kind") or "").upper()
            method = str(join.args.get("method") or "").upper()
            known = side in ("", "LEFT", "RIGHT", "FULL") and kind in ("", "INNER", "CROSS", "OUTER")
            if not known or method not in ("", "NATURAL"):  # pragma: no cover - a kind of join of another dialect
                raise UnreadError(f"a {method} {side} {kind} join")
            conditional = bool(join.args.get("on") or join.args.get("using"))
            if not (conditional or side or kind or method):
                first = len(clause.named)  # a comma: the conditions of the joins after it do not see what is before it
            elif conditional is (kind == "CROSS" or method == "NATURAL"):
                # a LEFT JOIN b CROSS JOIN c ON …: the parser gives the condition to the wrong join.
                raise UnreadError("a condition of another join")
            before = len(clause.visible)
            if side in ("RIGHT", "FULL"):
                for reference in clause.visible:
                    reference.nullable = True
            nested = len(clause.conditions)
            self._item(join.this, clause, ctes)
            if side in ("LEFT", "FULL"):
                for reference in clause.visible[before:]:
                    reference.nullable = True
            if side:
                del clause.conditions[nested:]
            if method or join.args.get("using"):
                clause.has_merged_columns = True
            condition = join.args.get("on")
            if condition is not None:
                self._expression(condition, ctes)
                if not side:
                    clause.conditions.append(Condition(condition, first, len(clause.named)))

    # Data-modifying statements

    def _write(self, node: exp.Expr, ctes: _Ctes, *, counted: bool) -> None:
        ctes = self._with(node, ctes)
        if isinstance(node, exp.Insert):
            write = self._insert(node, ctes)
        elif isinstance(node, exp.Update):
            write = self._update(node, ctes)
        elif isinstance(node, exp.Delete):
            write = self._delete(node, ctes)
        else:
            assert isinstance(node, exp.Merge)
            write = self._merge(node, ctes)
        write.counted = counted
        returning = node.args.get("returning")
        if returning is not None:
            self._expressions(returning, ("expressions",), ctes)
            write.returning = True
            write.old = refers_to(returning, self._aliases.old)
            write.new = refers_to(returning, self._aliases.new)
        self._writes.append(write)

    def _target(self, node: exp.Expr) -> TableReference:
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            raise UnreadError("a write on something that is not a table")
        self._only(node, _TABLE_PARTS)
        name = relation_name(node)
        self._names.add(name)
        alias = node.args.get("alias")
        if alias is not None and alias.args.get("columns"):
            raise UnreadError("a target with column aliases")
        return TableReference(name, name.name if alias is None else identifier_text(alias.this), [])

    def _insert(self, node: exp.Insert, ctes: _Ctes) -> Write:
        self._only(node, _INSERT_PARTS)
        target, columns = node.this, None
        if isinstance(target, exp.Schema):
            if not all(isinstance(column, exp.Identifier) for column in target.expressions):
                raise UnreadError("an INSERT column that is not a name")
            columns = tuple(identifier_text(column) for column in target.expressions)
            target = target.this
        reference = self._target(target)
        source = node.args.get("expression")
        rows: tuple[tuple[Operand | None, ...], ...] | None = None
        if isinstance(source, exp.Values):
            self._expressions(source, ("expressions",), ctes)
            rows = tuple(row_of(entry) for entry in source.expressions)
        elif source is not None:
            self._query(source, ctes)
        elif node.args.get("default"):
            columns, rows = (), ((),)
        else:
            raise UnreadError("an INSERT of nothing")
        write = Write(Verb.INSERT, reference.name, columns=columns, rows=rows)
        conflict = node.args.get("conflict")
        if conflict is not None:
            action = "" if conflict.args.get("action") is None else conflict.args["action"].name.upper()
            if action not in ("DO NOTHING", "DO UPDATE"):
                raise UnreadError(f"ON CONFLICT {action}")
            write.conflict = Conflict.UPDATE if action == "DO UPDATE" else Conflict.NOTHING
            write.assignments = self._assignments(conflict.expressions, ctes)
            self._expressions(conflict, ("conflict_keys", "where", "index_predicate"), ctes)
            write.conflict_columns = conflict_columns(conflict)
        return write

    def _update(self, node: exp.Update, ctes: _Ctes) -> Write:
        self._only(node, _UPDATE_PARTS)
        reference = self._target(node.this)
        source = node.args.get("from_")
        assignments = self._assignments(node.expressions, ctes)
        other_references = self._filtered(node, reference, [] if source is None else [source.this], ctes)
        return Write(
            Verb.UPDATE,
            reference.name,
            equalities=tuple(reference.equalities),
            assignments=assignments,
            other_references=tuple(other_references),
        )

    def _delete(self, node: exp.Delete, ctes: _Ctes) -> Write:
        self._only(node, _DELETE_PARTS)
        reference = self._target(node.this)
        other_references = self._filtered(node, reference, node.args.get("using") or [], ctes)
        return Write(
            Verb.DELETE,
            reference.name,
            equalities=tuple(reference.equalities),
            other_references=tuple(other_references),
        )

    def _filtered(
        self, node: exp.Expr, target: TableReference, sources: list[exp.Expr], ctes: _Ctes
    ) -> list[TableReference]:
        """Reads UPDATE's FROM or DELETE's USING and WHERE; what comes from elsewhere than the target."""
        clause = FromClause()
        for source in sources:
            self._item(source, clause, ctes)
        other_references = list(clause.visible)
        clause.named.append(target)
        where = node.args.get("where")
        if where is not None:
            self._expression(where.this, ctes)
            clause.conditions.append(Condition(where.this))
        clause.attach_equalities()
        return other_references

    def _merge(self, node: exp.Merge, ctes: _Ctes) -> Write:
        self._only(node, _MERGE_PARTS)
        reference = self._target(node.this)
        clause = FromClause()
        self._item(node.args["using"], clause, ctes)
        self._expression(node.args["on"], ctes)
        assignments: list[tuple[str, Operand | None]] = []
        deletes = False
        for when in node.args["whens"].expressions:
            self._expressions(when, ("condition",), ctes)
            action = when.args["then"]
            if isinstance(action, exp.Update):
                assignments += self._assignments(action.expressions, ctes)
            elif isinstance(action, exp.Insert):
                self._expressions(action, ("expression",), ctes)
            elif action.name.upper() == "DELETE":
                deletes = True
            elif action.name.upper() not in ("DO NOTHING", ""):  # pragma: no cover - an action newer than the parser
                raise UnreadError("an unknown MERGE action")
        return Write(
            Verb.MERGE,
            reference.name,
            assignments=tuple(assignments),
            other_references=tuple(clause.visible),
            deletes=deletes,
        )

    def _assignments(self, nodes: Sequence[exp.Expr], ctes: _Ctes) -> tuple[tuple[str, Operand | None], ...]:
        found: list[tuple[str, Operand | None]] = []
        for node in nodes:
            if not isinstance(node, exp.EQ):
                raise UnreadError("SET with something that is not an assignment")
            self._expression(node.expression, ctes)
            target = node.this
            if isinstance(target, exp.Tuple) or (isinstance(target, exp.Paren) and isinstance(target.this, exp.Column)):
                columns = target.expressions if isinstance(target, exp.Tuple) else [target.this]
                values = row_of(node.expression)
                if len(values) != len(columns):
                    values = (None,) * len(columns)
                for column, value in zip(columns, values, strict=True):
                    plain = column.unnest()
                    is_whole = isinstance(plain, exp.Column) and plain.args.get("table") is None
                    found.append((assigned_column(column), value if is_whole else None))
            elif isinstance(target, exp.Column) and target.args.get("table") is None:
                found.append((assigned_column(target), operand_of(node.expression)))
            else:
                found.append((assigned_column(target), None))  # an element of an array, a field of a composite
        return tuple(found)

    # Expressions

    def _expressions(self, node: exp.Expr, parts: Iterable[str], ctes: _Ctes) -> None:
        for part in parts:
            value = node.args.get(part)
            for entry in value if isinstance(value, list) else (value,):
                if isinstance(entry, exp.Expr):
                    self._expression(entry, ctes)

    def _expression(self, node: exp.Expr, ctes: _Ctes) -> None:
        """Notes the functions an expression calls and reads its subqueries, whose columns never reach the result."""
        waiting: list[exp.Expr] = [node]
        while waiting:
            current = waiting.pop()
            if isinstance(current, _QUERY):
                self._query(current, ctes)
                continue
            if isinstance(current, (*_MODIFYING, exp.Command, exp.Table, exp.Aliases)):
                raise UnreadError(f"a {type(current).__name__} within an expression")
            if isinstance(current, exp.Anonymous):
                parent = current.parent
                schema = parent.this if isinstance(parent, exp.Dot) and parent.expression is current else None
                self._function(current, schema, ctes)
                continue
            if (called := _CALLED_BY_KEY_WORDS.get(type(current))) is not None:
                self._functions.add(Name(None, called))
            waiting.extend(current.iter_expressions())

    def _function(self, node: exp.Anonymous, schema: Any, ctes: _Ctes) -> None:
        if isinstance(node.this, exp.Identifier):
            qualifier = identifier_text(schema) if isinstance(schema, exp.Identifier) else None
            if schema is not None and qualifier is None:
                raise UnreadError("a function of something that is not a schema")
            name = node.this.this.removeprefix(CALL_PREFIX)
            if CALL_PREFIX + name != CURRENT_OF:
                self._functions.add(Name(qualifier, name))
        elif node.name.lower() not in _CONSTRUCTS:
            self._functions.add(Name(None, node.name.lower()))  # a key word that may name a function
        self._expressions(node, ("expressions",), ctes)

    def _only(self, node: exp.Expr, known: frozenset[str]) -> None:
        for part, value in node.args.items():
            if value and part not in known:
                raise UnreadError(f"{type(node).__name__} with {part}")
