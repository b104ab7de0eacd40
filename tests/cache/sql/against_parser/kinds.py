"""Which kind of statement it is: what a ``Statement`` must say of each kind of node."""

from collections.abc import Callable, Iterator
from typing import Any

from postgast import pg_query_pb2 as pb

from cache.sql.plans import RESET_ALL, Command
from cache.sql.statements import Statement
from tests.cache.sql.against_parser.conditions import inner, strings, type_name, words
from tests.cache.sql.against_parser.records import Name, ParsedStatement
from tests.cache.sql.against_parser.tree import children, is_analyzed

PLAIN = words(
    "SelectStmt InsertStmt UpdateStmt DeleteStmt MergeStmt CopyStmt TruncateStmt CreateTableAsStmt ExplainStmt"
)
"""Statements that read or write tables themselves."""

_HARMLESS = words(
    "LockStmt VacuumStmt ClusterStmt ReindexStmt CheckPointStmt ListenStmt UnlistenStmt NotifyStmt LoadStmt "
    "CommentStmt GrantStmt GrantRoleStmt SecLabelStmt ReassignOwnedStmt VariableShowStmt ConstraintsSetStmt "
    "AlterDefaultPrivilegesStmt CreateRoleStmt AlterRoleStmt DropRoleStmt CreatedbStmt DropdbStmt "
    "CreateTableSpaceStmt DropTableSpaceStmt AlterTableSpaceOptionsStmt CreatePublicationStmt AlterPublicationStmt "
    "CreateSubscriptionStmt AlterSubscriptionStmt DropSubscriptionStmt CreateEventTrigStmt AlterEventTrigStmt "
    "AlterSystemStmt CreateAmStmt CreateFdwStmt AlterFdwStmt CreateForeignServerStmt AlterForeignServerStmt "
    "CreateUserMappingStmt AlterUserMappingStmt DropUserMappingStmt AlterDatabaseStmt AlterDatabaseRefreshCollStmt "
    "AlterTableMoveAllStmt CreatePolicyStmt AlterPolicyStmt AlterTSDictionaryStmt AlterTSConfigurationStmt "
    "AlterObjectDependsStmt"
)
"""Statements that change no row and nothing that the catalog query answers."""

_TRANSACTION = {
    pb.TRANS_STMT_BEGIN: Command.BEGIN,
    pb.TRANS_STMT_START: Command.BEGIN,
    pb.TRANS_STMT_COMMIT: Command.COMMIT,
    pb.TRANS_STMT_ROLLBACK: Command.ROLLBACK,
    pb.TRANS_STMT_SAVEPOINT: Command.SAVEPOINT,
    pb.TRANS_STMT_RELEASE: Command.RELEASE,
    pb.TRANS_STMT_ROLLBACK_TO: Command.ROLLBACK_TO,
    pb.TRANS_STMT_PREPARE: Command.PREPARE_TRANSACTION,
    pb.TRANS_STMT_COMMIT_PREPARED: Command.COMMIT_PREPARED,
    pb.TRANS_STMT_ROLLBACK_PREPARED: Command.ROLLBACK_PREPARED,
}
_CARELESS = (Command.NONE, Command.UTILITY)


def differences(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    check = _CHECKS.get(theirs.kind)
    if check is not None:
        yield from check(ours, theirs)
    elif theirs.kind not in _HARMLESS:
        yield from _definition(ours, theirs)


def _is(ours: Statement, command: Command, name: str | None = None) -> Iterator[str]:
    if ours.command is not command or ours.name != name:
        yield f"{ours.command} {ours.name} for {command} {name}"


def _transaction(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    node = theirs.node
    command = _TRANSACTION[node.kind]
    if ours.command is not command or ours.name not in (
        node.savepoint_name or node.gid or None,
        node.gid or None,
        None,
    ):
        yield f"{ours.command} {ours.name} for {command} {node.savepoint_name}{node.gid}"
    if ours.name is None and node.savepoint_name:
        yield f"no savepoint for {node.savepoint_name}"
    if ours.chain != node.chain:
        yield f"chain {ours.chain}"


def _prepare(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if ours.unread:
        return
    yield from _is(ours, Command.PREPARE, theirs.node.name)
    types = [type_name(inner(one)) for one in theirs.node.argtypes]
    if ours.inner is None or len(ours.types) != len(types):
        yield f"prepares {ours.inner} with types {ours.types}"
    elif any(name not in ("", other) for name, other in zip(ours.types, types, strict=True)):
        yield f"types {ours.types} for {types}"


def _execute(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if ours.unread:
        return
    yield from _is(ours, Command.EXECUTE, theirs.node.name)
    if len(ours.arguments) != len(theirs.node.params):
        yield f"arguments {ours.arguments}"
    if theirs.functions and not ours.opaque:
        yield f"calls {theirs.functions}"


def _deallocate(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    yield from _is(ours, Command.DEALLOCATE, theirs.node.name or None)


_CURSOR_HOLD = 0x20


def _declare(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if ours.unread:
        return
    yield from _is(ours, Command.DECLARE, theirs.node.portalname)
    if ours.holdable != bool(theirs.node.options & _CURSOR_HOLD):
        yield f"holdable {ours.holdable}"


def _fetch(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    yield from _is(ours, Command.FETCH, theirs.node.portalname)


def _close(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    yield from _is(ours, Command.CLOSE, theirs.node.portalname or None)


def _discard(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    commands = {pb.DISCARD_ALL: Command.DISCARD_ALL, pb.DISCARD_TEMP: Command.DISCARD_TEMP}
    yield from _is(ours, commands.get(theirs.node.target, Command.UTILITY))


_SETTINGS = words(
    "search_path role session_authorization client_encoding standard_conforming_strings timezone datestyle "
    "intervalstyle bytea_output extra_float_digits xmloption"
)
"""The run-time parameters that decide what a name means and how a value is printed."""


def _set(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    node = theirs.node
    if node.kind in (pb.VAR_SET_VALUE, pb.VAR_SET_DEFAULT, pb.VAR_SET_CURRENT, pb.VAR_RESET):
        yield from _set_one(ours, theirs)
        return
    yield from _is(ours, Command.SET)
    if node.kind == pb.VAR_SET_MULTI:
        if "SNAPSHOT" in node.name and not ours.opaque:
            yield "an older snapshot"
        return
    if node.kind == pb.VAR_RESET_ALL:
        if not {"*", RESET_ALL} & {name for name, _, _ in ours.settings}:
            yield f"settings {ours.settings} for all"
        return


def _set_one(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    node = theirs.node
    if node.name not in _SETTINGS:
        return
    yield from _is(ours, Command.SET)
    found = [one for one in ours.settings if one[0] in ("*", node.name.lower())]
    if not found:
        yield f"settings {ours.settings} for {node.name}"
        return
    name, value, local = found[0]
    if local and not node.is_local and name != "*":
        yield f"local {local} for {node.is_local}"
    values = [_value(inner(one)) for one in node.args]
    if value is not None and (node.kind != pb.VAR_SET_VALUE or not _is_value(value, node.name.lower(), values)):
        yield f"{node.name} is {value!r} for {values}"


def _is_value(value: str, name: str, values: list[str]) -> bool:
    if name == "search_path":
        # A number needs no quotes there, but may have them.
        return value.replace('"', "").replace("-0", "0") == ", ".join(values).replace('"', "")
    return value == ", ".join(values)


def _value(node: Any) -> str:
    if isinstance(node, pb.TypeCast):
        return "interval"
    kind = node.WhichOneof("val")
    return str(getattr(getattr(node, kind), kind))


def _copy(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if not ours.unread:
        yield from _is(ours, Command.COPY)


def _explain(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if ours.unread:
        return
    if not ours.explained:
        yield "not known to be explained"
    inside = inner(theirs.node.query)
    if is_analyzed(theirs.node) and isinstance(inside, pb.ExecuteStmt) and not ours.any_table:
        yield "EXECUTE may write anything"


def _select(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if ours.unread:
        return
    created = {name for name, _ in theirs.created}
    if {Name(one.schema, one.name) for one in ours.created} != created:
        yield f"creates {ours.created} for {created}"
    if ours.command not in (Command.UTILITY if created else Command.NONE, Command.SET):
        yield f"{ours.command}"
    temporary = {name.name for name, temporary in theirs.created if temporary}
    if not temporary <= set(ours.temporary):
        yield f"temporary {ours.temporary} for {temporary}"


def _data(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if not ours.unread and ours.command not in (Command.NONE, Command.SET):
        yield f"{ours.command}"


def _truncate(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if ours.unread:
        return
    yield from _is(ours, Command.UTILITY)
    if theirs.node.behavior == pb.DROP_CASCADE and not ours.any_table:
        yield "CASCADE empties other tables"


def _rename(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    yield from _definition(ours, theirs)
    node = theirs.node
    # A temporary relation may get the name of another.
    if node.rename_type in (pb.OBJECT_TABLE, pb.OBJECT_VIEW) and node.newname not in ours.temporary:
        yield f"temporary {ours.temporary}, not {node.newname}"


def _routine(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    if not ours.opaque:
        yield "what it does cannot be seen"


def _definition(ours: Statement, theirs: ParsedStatement) -> Iterator[str]:
    """DDL: the names it says must be known to change, or everything is."""
    if ours.unread and ours.writing:
        return
    if ours.command is not Command.UTILITY:
        yield f"{ours.command}"
    temporary = {name.name for name, temporary in theirs.created if temporary}
    if not temporary <= set(ours.temporary):
        yield f"temporary {ours.temporary} for {temporary}"
    named = set() if temporary else set(_relations(theirs.node))
    if named and not ours.ddl and not ours.any_table and not (ours.definition and named <= ours.identifiers):
        yield f"defines {named}, not {set(ours.identifiers)}"


def _relations(node: Any) -> Iterator[str]:
    """The names of relations that DDL speaks of, but for those in queries, bodies and partition bounds."""
    if isinstance(node, pb.RangeVar):
        yield node.relname
    elif isinstance(node, pb.DropStmt):
        for entry in map(inner, node.objects):
            if isinstance(entry, pb.List):
                yield from strings(entry.items)[-1:]
    elif not isinstance(node, (pb.SelectStmt, pb.InsertStmt, pb.UpdateStmt, pb.DeleteStmt, pb.CreateFunctionStmt)):
        for child in children(node):
            yield from _relations(child)


_CHECKS: dict[str, Callable[[Statement, ParsedStatement], Iterator[str]]] = {
    "TransactionStmt": _transaction,
    "PrepareStmt": _prepare,
    "ExecuteStmt": _execute,
    "DeallocateStmt": _deallocate,
    "DeclareCursorStmt": _declare,
    "FetchStmt": _fetch,
    "ClosePortalStmt": _close,
    "DiscardStmt": _discard,
    "VariableSetStmt": _set,
    "CopyStmt": _copy,
    "ExplainStmt": _explain,
    "SelectStmt": _select,
    "CreateTableAsStmt": _select,
    "InsertStmt": _data,
    "UpdateStmt": _data,
    "DeleteStmt": _data,
    "MergeStmt": _data,
    "TruncateStmt": _truncate,
    "RenameStmt": _rename,
    "CallStmt": _routine,
    "DoStmt": _routine,
    "RefreshMatViewStmt": _routine,
}
