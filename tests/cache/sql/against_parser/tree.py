"""What PostgreSQL's parser says of a text, in terms a ``cache.sql.statements.Statement`` can be compared with.

Written without a look at ``cache.sql``: the only thing both share is PostgreSQL's manual. It follows the parse tree
(``gram.y``, ``parse_clause.c``), where each rule of scope and of joins can be read off the nodes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import postgast
from postgast import pg_query_pb2 as pb

from tests.cache.sql.against_parser.conditions import Constant, constant, inner, strings, words
from tests.cache.sql.against_parser.levels import Level, list_in
from tests.cache.sql.against_parser.records import AnalysisError, Name, Node, Occurrence, ParsedStatement, Written


def statements(text: str) -> list[ParsedStatement]:
    """The statements of ``text``.

    Raises:
        PgQueryError: PostgreSQL refuses the text.
    """
    length = len(text.encode())
    found = []
    for raw in postgast.parse(text).stmts:
        start = raw.stmt_location
        end = start + raw.stmt_len if raw.stmt_len else length
        found.append(statement(inner(raw.stmt), start, end))
    return found


def statement(node: Node, start: int = 0, end: int = 0) -> ParsedStatement:
    result = ParsedStatement(node, type(node).__name__, start, end)
    _Walk(result).top(node)
    return result


def children(node: Node) -> list[Node]:
    found = []
    for descriptor, value in node.ListFields():
        if descriptor.message_type is not None:
            found += [inner(value)] if hasattr(value, "ListFields") else [inner(one) for one in value]
    return [one for one in found if one is not None]


def relation_of(variable: Node) -> Name:
    return Name(variable.schemaname or None, variable.relname)


_MODIFYING = {"InsertStmt": "INSERT", "UpdateStmt": "UPDATE", "DeleteStmt": "DELETE", "MergeStmt": "MERGE"}
_Scope = dict[str, list[Occurrence]]


class _Walk:
    def __init__(self, result: ParsedStatement) -> None:
        self._result = result
        self._outermost: Node = None
        """The query of the statement itself, which alone may have INTO and WITH … AS (INSERT …)."""

    def top(self, node: Node) -> None:
        kind = type(node).__name__
        self._outermost = node
        if kind == "SelectStmt":
            found = self._query(node, {})
            self._result.surfacing = [] if self._result.created else found
        elif kind in _MODIFYING:
            self._write(node, {}, counted=True)
        elif kind == "CreateTableAsStmt":
            self._into(node.into)
            if not node.into.skip_data:
                self.top(inner(node.query))
                self._result.surfacing = []
            if len(self._result.created) > 1:
                raise AnalysisError("CREATE TABLE AS SELECT … INTO")
        elif kind == "CopyStmt":
            self._copy(node)
        elif kind == "TruncateStmt":
            for one in node.relations:
                self._named(inner(one))
                self._result.writes.append(Written("TRUNCATE", relation_of(inner(one)), counted=False))
        elif kind in ("ExplainStmt", "DeclareCursorStmt", "PrepareStmt"):
            self.top(inner(node.query))
            if kind != "ExplainStmt" and self._result.created:
                raise AnalysisError("SELECT … INTO cannot be prepared")
            if kind == "ExplainStmt" and not is_analyzed(node):
                self._result.writes, self._result.created = [], []
                self._result.functions = set()
        elif kind in _MADE:
            self._create(_MADE[kind](node))
        elif kind in ("ExecuteStmt", "CallStmt"):
            self._expressions(node, {})

    def _copy(self, node: Node) -> None:
        if node.HasField("query"):
            self.top(inner(node.query))
            self._result.surfacing = []
            if self._result.created:
                raise AnalysisError("COPY (SELECT … INTO) is not supported")
            return
        self._named(node.relation)
        if node.is_from:
            self._result.writes.append(Written("COPY", relation_of(node.relation)))

    def _named(self, variable: Node) -> None:
        self._result.names.add(relation_of(variable))

    def _into(self, clause: Node) -> None:
        self._create(clause.rel)

    def _create(self, variable: Node) -> None:
        temporary = variable.relpersistence == "t" or variable.schemaname.startswith("pg_temp")
        self._result.created.append((relation_of(variable), temporary))

    # Queries

    def _query(self, node: Node, scope: _Scope) -> list[Occurrence]:
        if node.HasField("into_clause") and not self._may_make(node):
            raise AnalysisError("SELECT … INTO is not allowed here")
        scope = self._with(node, scope)
        if node.op != pb.SETOP_NONE:
            found = self._query(node.larg, scope) + self._query(node.rarg, scope)
            self._parts(node, ("sort_clause", "limit_offset", "limit_count"), scope)
            return [replace(one, set_operation=True) for one in found]
        level = Level()
        for item in node.from_clause:
            self._item(inner(item), level, scope)
        if node.HasField("into_clause"):
            self._into(node.into_clause)
        if node.HasField("where_clause"):
            level.hold(node.where_clause, level.direct)
        level.follow_lists()
        parts = [name for name in _SELECT_PARTS if name in {f.name for f, _ in node.ListFields()}]
        self._parts(node, parts, scope)
        if any(_has_grouping_sets(inner(one)) for one in node.group_clause):
            level.surfacing = [replace(one, grouping_sets=True) for one in level.surfacing]
        return level.surfacing

    def _may_make(self, node: Node) -> bool:
        """It is the statement's own SELECT, or the first of its UNION."""
        first = self._outermost
        while isinstance(first, pb.SelectStmt) and first.op != pb.SETOP_NONE:
            first = first.larg
        return node is first or node == first

    def _with(self, node: Node, scope: _Scope) -> _Scope:
        if not node.HasField("with_clause"):
            return scope
        clause, scope = node.with_clause, dict(scope)
        tables = [inner(one) for one in clause.ctes]
        if clause.recursive:
            scope.update({one.ctename: [] for one in tables})
        for one in tables:
            query = inner(one.ctequery)
            if isinstance(query, pb.SelectStmt):
                found = self._query(query, scope)
            else:
                if node != self._outermost:
                    raise AnalysisError("WITH that writes must be at the top level")
                found = []
                self._write(query, scope, counted=False)
            scope[one.ctename] = found
        return scope

    def _item(self, node: Node, level: Level, scope: _Scope) -> tuple[list[Occurrence], list[Occurrence]]:
        """Reads one item of a FROM clause. Those of its relations whose rows come out of it, and those of them that
        stand in this FROM clause itself."""
        surfacing: list[Occurrence] = []
        direct: list[Occurrence] = []
        if isinstance(node, (pb.RangeSubselect, pb.RangeFunction)) and (listed := list_in(node)) is not None:
            level.lists[node.alias.aliasname] = listed
        if isinstance(node, pb.RangeVar):
            name = relation_of(node)
            if name.schema is None and name.name in scope:
                surfacing = [replace(one) for one in scope[name.name]]
            else:
                self._result.names.add(name)
                alias = node.alias.aliasname if node.HasField("alias") else name.name
                direct = [Occurrence(name, alias, renamed=bool(node.alias.colnames))]
                surfacing = list(direct)
        elif isinstance(node, pb.RangeSubselect):
            surfacing = [replace(one) for one in self._query(inner(node.subquery), scope)]
        elif isinstance(node, pb.JoinExpr):
            return self._join(node, level, scope)
        elif isinstance(node, pb.RangeTableSample):
            self._parts(node, ("args", "repeatable"), scope)
            return self._item(inner(node.relation), level, scope)
        else:
            self._expressions(node, scope)
        level.surfacing += surfacing
        level.direct += direct
        return surfacing, direct

    def _join(self, node: Node, level: Level, scope: _Scope) -> tuple[list[Occurrence], list[Occurrence]]:
        left, left_direct = self._item(inner(node.larg), level, scope)
        right, right_direct = self._item(inner(node.rarg), level, scope)
        level.merged |= {"*"} if node.is_natural else set(strings(node.using_clause))
        for side, types in ((left, (pb.JOIN_RIGHT, pb.JOIN_FULL)), (right, (pb.JOIN_LEFT, pb.JOIN_FULL))):
            for one in side if node.jointype in types else ():
                one.nullable = True
        if node.HasField("quals"):
            self._expression(inner(node.quals), scope)
            if node.jointype == pb.JOIN_INNER:
                level.hold(node.quals, left_direct + right_direct)
        direct = left_direct + right_direct
        if node.HasField("alias"):
            for one in direct:
                one.renamed = True
        return left + right, direct

    # Data-modifying statements

    def _write(self, node: Node, scope: _Scope, *, counted: bool) -> None:
        scope = self._with(node, scope)
        self._named(node.relation)
        name = relation_of(node.relation)
        alias = node.relation.alias.aliasname or name.name
        target = Occurrence(name, alias)
        written = Written(_MODIFYING[type(node).__name__], name, counted, target)
        level = Level()
        getattr(self, "_" + written.verb.lower())(node, written, level, scope)
        written.others = list(level.surfacing)
        if node.HasField("returning_clause"):
            self._returning(node.returning_clause, written, scope)
        self._result.writes.append(written)

    def _insert(self, node: Node, written: Written, level: Level, scope: _Scope) -> None:
        written.columns = [inner(one).name for one in node.cols] or None
        query = inner(node.select_stmt) if node.HasField("select_stmt") else None
        if query is None:
            written.columns, written.rows = [], [[]]
        elif query.values_lists and not query.HasField("with_clause"):
            if len({len(inner(entry).items) for entry in query.values_lists}) > 1:
                raise AnalysisError("VALUES lists must all be the same length")
            written.rows = [[constant(inner(one)) for one in inner(entry).items] for entry in query.values_lists]
            self._query(query, scope)
        else:
            self._query(query, scope)
        clause = node.on_conflict_clause
        if clause.action == pb.ONCONFLICT_UPDATE:
            written.conflict = "update"
            written.assignments = self._assignments(clause.target_list, scope)
        elif clause.action == pb.ONCONFLICT_NOTHING:
            written.conflict = "nothing"
        self._parts(clause, ("infer", "where_clause"), scope)
        elements = [inner(one) for one in clause.infer.index_elems]
        if elements and all(one.name for one in elements):
            written.arbiter = frozenset(one.name for one in elements)

    def _update(self, node: Node, written: Written, level: Level, scope: _Scope) -> None:
        written.assignments = self._assignments(node.target_list, scope)
        self._filtered(node, node.from_clause, written, level, scope)

    def _delete(self, node: Node, written: Written, level: Level, scope: _Scope) -> None:
        self._filtered(node, node.using_clause, written, level, scope)

    def _filtered(self, node: Node, items: Any, written: Written, level: Level, scope: _Scope) -> None:
        for item in items:
            self._item(inner(item), level, scope)
        assert written.occurrence is not None
        if node.HasField("where_clause"):
            self._expression(inner(node.where_clause), scope)
            level.hold(node.where_clause, [*level.direct, written.occurrence])
        level.follow_lists()

    def _merge(self, node: Node, written: Written, level: Level, scope: _Scope) -> None:
        self._item(inner(node.source_relation), level, scope)
        self._parts(node, ("join_condition",), scope)
        for one in node.merge_when_clauses:
            clause = inner(one)
            self._parts(clause, ("condition", "values"), scope)
            if clause.command_type == pb.CMD_UPDATE:
                written.assignments += self._assignments(clause.target_list, scope)
            written.deletes = written.deletes or clause.command_type == pb.CMD_DELETE

    def _assignments(self, entries: Any, scope: _Scope) -> list[tuple[str, Constant | None]]:
        found: list[tuple[str, Constant | None]] = []
        for entry in entries:
            target = inner(entry)
            value = inner(target.val)
            if isinstance(value, pb.MultiAssignRef):
                source = inner(value.source)
                if value.colno <= 1:
                    self._expression(source, scope)
                if isinstance(source, pb.RowExpr):
                    if len(source.args) != value.ncolumns:
                        raise AnalysisError("number of columns does not match number of values")
                    value = inner(source.args[value.colno - 1])
                else:
                    value = source if value.ncolumns == 1 else None
            else:
                self._expression(value, scope)
            found.append((target.name, None if target.indirection or value is None else constant(value)))
        return found

    def _returning(self, clause: Node, written: Written, scope: _Scope) -> None:
        self._parts(clause, ("exprs",), scope)
        written.returning = True
        old, new = {"old"}, {"new"}
        for one in clause.options:
            option = inner(one)
            (old if option.option == pb.RETURNING_OPTION_OLD else new).add(option.value)
        spoken = {reference[0] for one in clause.exprs for reference in _references(inner(one)) if len(reference) < 3}
        written.old, written.new = bool(spoken & old), bool(spoken & new)

    # Expressions

    def _parts(self, node: Node, parts: Any, scope: _Scope) -> None:
        for part in parts:
            value = getattr(node, part)
            if not hasattr(value, "ListFields"):
                for one in value:
                    self._expression(inner(one), scope)
            elif node.HasField(part):
                self._expression(inner(value), scope)

    def _expressions(self, node: Node, scope: _Scope) -> None:
        for child in children(node):
            self._expression(child, scope)

    def _expression(self, node: Node, scope: _Scope) -> None:
        if node is None:
            return
        if isinstance(node, pb.SelectStmt):
            self._query(node, scope)
            return
        if isinstance(node, pb.FuncCall) and node.funcformat == pb.COERCE_EXPLICIT_CALL:
            parts = strings(node.funcname)
            if parts not in _SYNTAX:
                self._result.functions.add(Name(parts[-2] if len(parts) > 1 else None, parts[-1]))
            if parts[-1] == "set_config":
                first: Node = inner(node.args[0]) if node.args else None
                is_text = isinstance(first, pb.A_Const) and first.WhichOneof("val") == "sval"
                self._result.settings.append(first.sval.sval.lower() if is_text else None)
        elif isinstance(node, pb.ParamRef):
            self._result.parameters[node.number - 1] += 1
        self._expressions(node, scope)


def _boolean(node: Node) -> bool | None:
    """An option's value; None if it is not a Boolean one."""
    if isinstance(node, pb.Integer):
        return {0: False, 1: True}.get(node.ival)
    if isinstance(node, pb.Boolean):
        return bool(node.boolval)
    word = node.sval.lower() if isinstance(node, pb.String) else ""
    return {"true": True, "on": True, "false": False, "off": False}.get(word)


def is_analyzed(node: Node) -> bool:
    """EXPLAIN runs the statement."""
    runs = False
    for option in map(inner, node.options):
        if option.defname not in _EXPLAIN_OPTIONS:
            raise AnalysisError("unrecognized EXPLAIN option")
        if option.defname == "analyze":
            value = _boolean(inner(option.arg)) if option.HasField("arg") else True
            if value is None:
                raise AnalysisError("analyze requires a Boolean value")
            runs = value
    return runs


_MADE: dict[str, Callable[[Node], Node]] = {
    "CreateStmt": lambda node: node.relation,
    "ViewStmt": lambda node: node.view,
    "CreateSeqStmt": lambda node: node.sequence,
    "CreateForeignTableStmt": lambda node: node.base_stmt.relation,
}
"""The relation that a definition makes."""
_EXPLAIN_OPTIONS = words(
    "analyze verbose costs settings generic_plan buffers serialize wal timing summary memory format"
)
_SYNTAX = [["pg_catalog", "like_escape"], ["pg_catalog", "similar_to_escape"]]
"""What the parser makes of LIKE … ESCAPE and SIMILAR TO."""
_SELECT_PARTS = (
    "distinct_clause", "target_list", "where_clause", "group_clause", "having_clause", "window_clause", "values_lists",
    "sort_clause", "limit_offset", "limit_count",
)  # fmt: skip


def _has_grouping_sets(node: Node) -> bool:
    return isinstance(node, pb.GroupingSet) and node.kind != pb.GROUPING_SET_EMPTY


def _references(node: Node) -> list[list[str]]:
    """The column references in an expression, but for those in its subqueries."""
    if node is None or isinstance(node, pb.SelectStmt):
        return []
    if isinstance(node, pb.ColumnRef):
        return [strings(node.fields)]
    return [found for child in children(node) for found in _references(child)]
