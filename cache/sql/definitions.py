"""CREATE, ALTER, DROP and the like: what they may change in tables' rows and in the catalog query's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.sql.canonical import word_set
from cache.sql.lexer import WORD
from cache.sql.plans import Command
from cache.sql.statements import Name, Statement
from cache.sql.tokens import identifier, identifiers_in, is_at, qualified_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.sql.lexer import Token

_WITHOUT_RELATION = word_set(
    "function procedure routine aggregate type domain extension schema owned index collation operator cast language "
    "conversion transform"
)
"""Objects whose DDL may change the catalog query's answer without naming a relation."""
_ROUTINES = frozenset(["function", "procedure", "routine", "aggregate"])
"""Objects whose CREATE names relations that it does not change."""
_WITH_SETTINGS = frozenset(["role", "user", "database", "system"])
"""Objects that hold settings with which sessions begin."""
_REACHING_ANY_TABLE = frozenset(["schema", "type", "domain", "extension", "owned", "collation"])
"""Objects whose DROP or ALTER may change the rows of tables it does not name."""


def create(tokens: Sequence[Token]) -> tuple[Statement, Sequence[Token] | None]:
    """A CREATE statement, and the query that it runs (CREATE TABLE … AS), if it runs one: see ``run_query``."""
    position = 3 if is_at(tokens, 1, "or", "replace") else 1
    temporary = False
    while tokens[position].text in ("temp", "temporary", "local", "global", "unlogged", "recursive", "materialized"):
        temporary = temporary or tokens[position].text in ("temp", "temporary")
        position += 1
    if tokens[position].text == "foreign" and is_at(tokens, position + 1, "table"):
        position += 1
    kind = tokens[position].text
    result = _definition(tokens, kind)
    if kind not in ("table", "view", "sequence"):
        return result, None
    position += 1
    if is_at(tokens, position, "if", "not", "exists"):
        position += 3
    name, position = qualified_name(tokens, position)
    result.created = (name,)
    if temporary or is_temporary(name):
        result.temporary = (name.name,)
        result.definition = False
    start = None
    if kind == "table" or "materialized" in [token.text for token in tokens[:4]]:
        start = next((i for i in range(position, len(tokens)) if is_at(tokens, i, "as")), None)
    if start is not None and _starts_query(tokens, start + 1):
        result.identifiers = frozenset([name.name])
        return result, _query_that_runs(result, tokens[start + 1 :])
    return result, None


def is_temporary(name: Name) -> bool:
    """It names a temporary relation by its schema."""
    return (name.schema or "").startswith("pg_temp")


def _starts_query(tokens: Sequence[Token], position: int) -> bool:
    return position < len(tokens) and tokens[position].text in ("select", "values", "table", "with", "(", "execute")


def _query_that_runs(result: Statement, query: Sequence[Token]) -> Sequence[Token] | None:
    """The query after AS without WITH DATA; None when it does not run (WITH NO DATA) or cannot be seen (EXECUTE)."""
    if query[0].text == "execute":
        result.any_table = result.opaque = True
        return None
    end = len(query)
    if end > 2 and is_at(query, end - 2, "no", "data"):
        return None
    if end > 2 and is_at(query, end - 2, "with", "data"):
        end -= 2
    return query[:end]


def run_query(result: Statement, inner: Statement) -> None:
    """Add to the definition ``result`` what running its query does."""
    result.functions = inner.functions
    result.settings = inner.settings
    result.parameters = inner.parameters
    result.opaque = result.opaque or inner.opaque
    result.writes = inner.writes
    if inner.unread:
        result.unread, result.writing, result.identifiers = True, inner.writing, result.identifiers | inner.identifiers
    for write in result.writes:
        write.counted = write.returning = False


def _definition(tokens: Sequence[Token], kind: str) -> Statement:
    creates = tokens[0].text == "create"
    named = frozenset[str]() if kind in _ROUTINES and creates else identifiers_in(tokens)
    keeps = (creates and kind not in ("rule", "trigger", "constraint")) or kind in ("index", "view", "statistics")
    return Statement(
        Command.UTILITY, definition=True, ddl=kind in _WITHOUT_RELATION, identifiers=named, keeps_rows=keeps
    )


def alter_or_drop(tokens: Sequence[Token]) -> Statement:
    """ALTER or DROP of anything: what it names, and whether it may reach tables that it does not name."""
    if tokens[1].text in _WITH_SETTINGS and any(token.text in ("set", "reset") for token in tokens[2:]):
        # The catalog query asks whether sessions begin with another extra_float_digits.
        return Statement(Command.UTILITY, definition=True, ddl=True, keeps_rows=True)
    position = 1
    while tokens[position].text in ("materialized", "foreign", "event", "text", "user") and position + 1 < len(tokens):
        position += 1
    kind = tokens[position].text
    result = _definition(tokens, kind)
    cascade = tokens[-1].kind == WORD and tokens[-1].text == "cascade"
    if kind in _REACHING_ANY_TABLE and (tokens[0].text == "alter" or cascade or kind in ("schema", "owned")):
        result.any_table = True
    if kind in ("table", "view", "sequence"):
        for index in range(position, len(tokens)):
            if is_at(tokens, index, "rename", "to"):
                result.temporary = (identifier(tokens[index + 2]),)
    return result


def refresh(tokens: Sequence[Token]) -> Statement:
    """REFRESH MATERIALIZED VIEW calls whatever functions its query calls."""
    return Statement(Command.UTILITY, opaque=True)


def import_schema(tokens: Sequence[Token]) -> Statement:
    """IMPORT FOREIGN SCHEMA creates foreign tables."""
    return Statement(Command.UTILITY, ddl=True, definition=True, identifiers=identifiers_in(tokens))
