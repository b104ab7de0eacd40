"""CREATE, ALTER, DROP and their kind: what they may change of tables' rows and of what the catalog query answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.sql.canonical import words
from cache.sql.lexer import WORD
from cache.sql.plans import Command
from cache.sql.statements import Shape
from cache.sql.tokens import identifier, is_at, qualified, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.sql.lexer import Token

_NAMELESS_DDL = words(
    "function procedure routine aggregate type domain extension schema owned index collation operator cast language "
    "conversion transform"
)
"""Objects whose DDL may change the catalog query's answer without naming a relation."""
_WORDLESS = frozenset(["function", "procedure", "routine", "aggregate"])
"""Objects whose definitions name relations that they do not change."""
_SETTERS = frozenset(["role", "user", "database", "system"])
_REACHING = frozenset(["schema", "type", "domain", "extension", "owned", "collation"])
"""Objects whose DROP or ALTER may change the rows of tables it does not name."""


def create(found: Sequence[Token]) -> tuple[Shape, Sequence[Token] | None]:
    """A CREATE statement, and the query that it runs (CREATE TABLE … AS), if it runs one: see ``run_query``."""
    position = 3 if is_at(found, 1, "or", "replace") else 1
    temporary = False
    while found[position].text in ("temp", "temporary", "local", "global", "unlogged", "recursive", "materialized"):
        temporary = temporary or found[position].text in ("temp", "temporary")
        position += 1
    if found[position].text == "foreign" and is_at(found, position + 1, "table"):
        position += 1
    kind = found[position].text
    result = _definition(found, kind)
    if kind not in ("table", "view", "sequence"):
        return result, None
    position += 1
    if is_at(found, position, "if", "not", "exists"):
        position += 3
    name, position = qualified(found, position)
    result.created = (name,)
    if temporary or (name.schema or "").startswith("pg_temp"):
        result.temporary = (name.name,)
        result.definition = False
    start = None
    if kind == "table" or "materialized" in [token.text for token in found[:4]]:
        start = next((i for i in range(position, len(found)) if is_at(found, i, "as")), None)
    if start is not None and _starts_query(found, start + 1):
        result.words = frozenset([name.name])
        return result, _query_that_runs(result, found[start + 1 :])
    return result, None


def _starts_query(found: Sequence[Token], position: int) -> bool:
    return position < len(found) and found[position].text in ("select", "values", "table", "with", "(", "execute")


def _query_that_runs(result: Shape, query: Sequence[Token]) -> Sequence[Token] | None:
    """The query after AS without WITH DATA; None when it does not run (WITH NO DATA) or cannot be seen (EXECUTE)."""
    if query[0].text == "execute":
        result.everything = result.opaque = True
        return None
    end = len(query)
    if end > 2 and is_at(query, end - 2, "no", "data"):
        return None
    if end > 2 and is_at(query, end - 2, "with", "data"):
        end -= 2
    return query[:end]


def run_query(result: Shape, inner: Shape) -> None:
    """Add to the definition ``result`` what running its query does."""
    result.functions = inner.functions
    result.opaque = result.opaque or inner.opaque
    result.writes = inner.writes
    if inner.unread:
        result.unread, result.writing, result.words = True, inner.writing, result.words | inner.words
    for write in result.writes:
        write.counted = write.returning = False


def _definition(found: Sequence[Token], kind: str) -> Shape:
    creates = found[0].text == "create"
    named = frozenset[str]() if kind in _WORDLESS and creates else words_of(found)
    keeps = (creates and kind not in ("rule", "trigger", "constraint")) or kind in ("index", "view", "statistics")
    return Shape(Command.UTILITY, definition=True, ddl=kind in _NAMELESS_DDL, words=named, keeps_rows=keeps)


def alter_or_drop(found: Sequence[Token]) -> Shape:
    if found[1].text in _SETTERS and any(token.text in ("set", "reset") for token in found[2:]):
        # What sessions of a role or database begin with is among what the catalog says.
        return Shape(Command.UTILITY, definition=True, ddl=True, keeps_rows=True)
    position = 1
    while found[position].text in ("materialized", "foreign", "event", "text", "user") and position + 1 < len(found):
        position += 1
    kind = found[position].text
    result = _definition(found, kind)
    cascade = found[-1].kind == WORD and found[-1].text == "cascade"
    if kind in _REACHING and (found[0].text == "alter" or cascade or kind in ("schema", "owned")):
        result.everything = True
    if kind in ("table", "view", "sequence"):
        for index in range(position, len(found)):
            if is_at(found, index, "rename", "to"):
                result.temporary = (identifier(found[index + 2]),)
    return result


def refresh(found: Sequence[Token]) -> Shape:
    """REFRESH MATERIALIZED VIEW calls whatever functions its query calls."""
    return Shape(Command.UTILITY, opaque=True)


def import_schema(found: Sequence[Token]) -> Shape:
    return Shape(Command.UTILITY, ddl=True, definition=True, words=words_of(found))
