"""Reads a statement from its tokens: queries and writes with the SQL parser, everything else by its leading words.

Transaction control, prepared statements, cursors, settings, DDL and utilities are recognised by their first words, as
in PostgreSQL's grammar. A statement within one (PREPARE's, a cursor's query) is read like any other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cache.sql import canonical, definitions, queries, set_commands
from cache.sql.canonical import closing
from cache.sql.lexer import MARK, OPERATOR, PARAMETER, STRING, WORD, LexicalError, Token
from cache.sql.plans import Command, Operand
from cache.sql.statements import Name, Rows, Shape, UnreadError, Verb, Write
from cache.sql.tokens import argument, identifier, is_at, qualified, split, string, type_names, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_QUERIES = 300
"""Queries of one text that the SQL parser gets; further ones are opaque."""

_QUERIES = frozenset(["select", "values", "table", "with", "insert", "update", "delete", "merge"])
_MODIFYING = frozenset(["insert", "update", "delete", "merge"])
_HARMLESS = canonical.words(
    "lock vacuum analyze analyse cluster reindex checkpoint listen unlisten notify load comment grant revoke security "
    "reassign wait"
)
_SETTING_WORDS = re.compile(r"set_config|search_path|standard_conforming_strings|client_encoding", re.IGNORECASE)


class StatementReader:
    """Reads the statements of one text, in their order.

    At most MAX_QUERIES of them go to the SQL parser, which bounds the time a text takes; further ones are opaque.
    """

    def __init__(self) -> None:
        self._queries_left = MAX_QUERIES

    def read(self, found: Sequence[Token]) -> Shape:
        """One statement, from its tokens without the semicolon. Never raises: a statement that cannot be followed is
        ``unread``."""
        try:
            return self._read(found)
        except (UnreadError, LexicalError, RecursionError, IndexError):
            return unread(found)

    def _read(self, found: Sequence[Token]) -> Shape:
        first = found[0]
        if first.kind == MARK and first.text == "(":
            return self._query(found)
        if first.kind != WORD:
            raise UnreadError("a statement starts with a word")
        word = first.text
        if word in _QUERIES:
            return self._query(found)
        simple = _SIMPLE.get(word)
        if simple is not None:
            return simple(found)
        nested = _NESTED.get(word)
        if nested is not None:
            return nested(self, found)
        if word in _HARMLESS:
            return Shape(Command.UTILITY)
        if word == "show":
            return Shape(Command.NONE)
        raise UnreadError(f"an unknown command {word}")

    def _query(self, found: Sequence[Token]) -> Shape:
        if canonical.depth(found) > canonical.MAX_DEPTH:
            raise UnreadError("nested too deeply")
        ignores_keys = any(is_at(found, position, "overriding", "user") for position in range(len(found)))
        found = canonical.simplified(found)
        shorter = canonical.shortened(found) if found[0].text == "insert" else None
        found = found if shorter is None else shorter
        found, temporary = _without_into_words(found)
        found, rows = _without_returning_names(found)
        if len(found) > canonical.MAX_PARSED:
            raise UnreadError("too long")
        if not self._queries_left:
            raise UnreadError("too many statements in one text")
        self._queries_left -= 1
        result = queries.read(found, rows)
        for token in found:
            if token.kind == PARAMETER:
                index = int(token.text) - 1
                result.parameters[index] = result.parameters.get(index, 0) + 1
        if result.created:  # SELECT INTO
            if temporary:
                result.temporary = tuple(name.name for name in result.created)
            result.command = Command.UTILITY
            result.mentions = ()
        for write in result.writes:
            if ignores_keys or shorter is not None:
                # Identity columns take other values than VALUES gives them; or not all of the rows were looked at.
                write.rows = None
            # A view of the server's settings: an UPDATE of it is a SET.
            if write.target.name == "pg_settings":
                result.settings += (("*", None, False),)
        if any(function.name == "set_config" for function in result.functions):
            result.settings += set_commands.of_calls(found)
            result.command = Command.SET
        return result

    def _prepare(self, found: Sequence[Token]) -> Shape:
        if is_at(found, 1, "transaction"):
            return Shape(Command.PREPARE_TRANSACTION, name=string(found, 2))
        name, position = identifier(found[1]), 2
        types: tuple[str, ...] = ()
        if is_at(found, 2, "("):
            end = closing(found, 2)
            types = type_names(found[3:end])
            position = end + 1
        if not is_at(found, position, "as"):
            raise UnreadError("PREPARE without AS")
        return Shape(Command.PREPARE, name=name, inner=self.read(found[position + 1 :]), types=types)

    def _declare(self, found: Sequence[Token]) -> Shape:
        name = identifier(found[1])
        position = next((i for i in range(2, len(found)) if is_at(found, i, "for")), None)
        if position is None:
            raise UnreadError("DECLARE without FOR")
        holdable = any(is_at(found, i, "with", "hold") for i in range(2, position))
        return Shape(Command.DECLARE, name=name, inner=self.read(found[position + 1 :]), holdable=holdable)

    def _explain(self, found: Sequence[Token]) -> Shape:
        position, runs = 1, False
        if is_at(found, 1, "("):
            end = closing(found, 1)
            # A query in parentheses may be meant as well; its first word tells.
            if not (found[2].kind == WORD and found[2].text in _QUERIES) and found[2].text != "(":
                for option in split(found[2:end]):
                    if option and option[0].text in ("analyze", "analyse"):
                        runs = runs or len(option) < 2 or option[1].text.lower() not in ("false", "off", "0")
                position = end + 1
        while position < len(found) and found[position].text in ("analyze", "analyse", "verbose"):
            runs = runs or found[position].text != "verbose"
            position += 1
        inner = self.read(found[position:])
        if not runs:
            return Shape(Command.NONE, names=inner.names, explained=True)
        if inner.command is Command.EXECUTE:
            # The statement it names is run, but neither its rows nor its row count show.
            return Shape(Command.NONE, everything=True, opaque=True, explained=True)
        if inner.inner is not None:
            inner = inner.inner  # DECLARE: its query is run as it is
        inner.explained = True
        inner.mentions = ()
        inner.command = Command.NONE
        for write in inner.writes:
            write.counted = write.returning = False
        return inner

    def _copy(self, found: Sequence[Token]) -> Shape:
        if is_at(found, 1, "("):
            inner = self.read(found[2 : closing(found, 1)])
            inner.command = Command.COPY
            inner.mentions = ()
            for write in inner.writes:
                write.counted = write.returning = False
            return inner
        start = 2 if is_at(found, 1, "binary") else 1
        name, position = qualified(found, start)
        if is_at(found, position, "("):
            position = closing(found, position) + 1
        if is_at(found, position, "to"):
            return Shape(Command.COPY, names=frozenset([name]))
        if not is_at(found, position, "from"):
            raise UnreadError("COPY without FROM or TO")
        return Shape(Command.COPY, names=frozenset([name]), writes=(Write(Verb.COPY, name),))

    def _create(self, found: Sequence[Token]) -> Shape:
        result, query = definitions.create(found)
        if query is not None:
            definitions.run_query(result, self.read(query))
        return result


def unread(found: Sequence[Token]) -> Shape:
    """All that is known of a statement that cannot be followed."""
    first = found[0].text if found and found[0].kind == WORD else "("
    if first in ("select", "values", "table"):
        writing = False
    elif first in ("with", "("):
        writing = any(_modifies(token, found[position - 1]) for position, token in enumerate(found) if position)
    else:
        writing = True
    return Shape(Command.NONE, unread=True, opaque=True, writing=writing, words=words_of(found))


def _modifies(token: Token, before: Token) -> bool:
    return token.kind == WORD and token.text in _MODIFYING and before.text not in ("for", "key")


def _without_into_words(found: list[Token]) -> tuple[list[Token], bool]:
    """The tokens without TEMP, UNLOGGED and TABLE in SELECT INTO, and whether the table is temporary."""
    for position, token in enumerate(found):
        if token.kind != WORD or token.text != "into" or found[position - 1].text in ("insert", "merge"):
            continue
        end, temporary = position + 1, False
        while found[end].kind == WORD and found[end].text in (
            *("temp", "temporary", "local", "global", "unlogged", "table"),
        ):
            temporary = temporary or found[end].text in ("temp", "temporary")
            end += 1
        return [*found[: position + 1], *found[end:]], temporary
    return found, False


def _without_returning_names(found: list[Token]) -> tuple[list[Token], Rows]:
    """The tokens without ``WITH (OLD AS o, NEW AS n)`` after RETURNING, and what it calls the rows."""
    old, new = {"old"}, {"new"}
    result: list[Token] = []
    position = 0
    while position < len(found):
        token = found[position]
        result.append(token)
        position += 1
        if token.kind == WORD and token.text == "returning" and is_at(found, position, "with", "("):
            end = closing(found, position)
            for index in range(position, end):
                if found[index].kind == WORD and found[index].text in ("old", "new") and is_at(found, index + 1, "as"):
                    (old if found[index].text == "old" else new).add(found[index + 2].text)
            position = end + 1
    return result, Rows(frozenset(old), frozenset(new))


# Transactions


def _begin(found: Sequence[Token]) -> Shape:
    return Shape(Command.BEGIN)


def _chain(found: Sequence[Token]) -> bool:
    words = [token.text for token in found]
    return "chain" in words and "no" not in words


def _commit(found: Sequence[Token]) -> Shape:
    if is_at(found, 1, "prepared"):
        return Shape(Command.COMMIT_PREPARED, name=string(found, 2))
    return Shape(Command.COMMIT, chain=_chain(found))


def _rollback(found: Sequence[Token]) -> Shape:
    if is_at(found, 1, "prepared"):
        return Shape(Command.ROLLBACK_PREPARED, name=string(found, 2))
    words = [token.text if token.kind == WORD else "" for token in found]
    if "to" in words[1:3]:
        return Shape(Command.ROLLBACK_TO, name=identifier(found[-1]))
    return Shape(Command.ROLLBACK, chain=_chain(found))


def _savepoint(found: Sequence[Token]) -> Shape:
    return Shape(Command.SAVEPOINT, name=identifier(found[1]))


def _release(found: Sequence[Token]) -> Shape:
    return Shape(Command.RELEASE, name=identifier(found[-1]))


# Prepared statements and cursors


def _execute(found: Sequence[Token]) -> Shape:
    name = identifier(found[1])
    if len(found) == 2:
        return Shape(Command.EXECUTE, name=name)
    if not is_at(found, 2, "(") or closing(found, 2) != len(found) - 1:
        raise UnreadError("EXECUTE without its arguments")
    arguments: list[Operand | None] = []
    called = False
    for part in split(found[3:-1]):
        arguments.append(argument(part))
        called = called or any(
            is_at([*part, Token(MARK, "")], position + 1, "(")
            for position, token in enumerate(part)
            if token.kind != MARK
        )
    return Shape(Command.EXECUTE, name=name, arguments=tuple(arguments), opaque=called)


def _deallocate(found: Sequence[Token]) -> Shape:
    last = found[-1]
    everything = last.kind == WORD and last.text == "all"
    return Shape(Command.DEALLOCATE, name=None if everything else identifier(last))


def _fetch(found: Sequence[Token]) -> Shape:
    return Shape(Command.FETCH, name=identifier(found[-1]))


def _close(found: Sequence[Token]) -> Shape:
    last = found[-1]
    everything = last.kind == WORD and last.text == "all"
    return Shape(Command.CLOSE, name=None if everything else identifier(last))


def _discard(found: Sequence[Token]) -> Shape:
    if not is_at(found, 1, "all"):
        return Shape(Command.UTILITY)
    return Shape(Command.DISCARD_ALL, settings=(("*", None, False),))


# Settings


def _set(found: Sequence[Token]) -> Shape:
    if is_at(found, 1, "constraints"):
        return Shape(Command.UTILITY)
    # SET TRANSACTION SNAPSHOT: what the transaction reads may be older than its beginning.
    older = any(is_at(found, position, "transaction", "snapshot") for position in (1, 2))
    return Shape(Command.SET, settings=set_commands.of_set(found), opaque=older)


def _reset(found: Sequence[Token]) -> Shape:
    return Shape(Command.SET, settings=set_commands.of_reset(found))


# TRUNCATE, CALL and DO


def _truncate(found: Sequence[Token]) -> Shape:
    position = 2 if is_at(found, 1, "table") else 1
    cascade = is_at(found, len(found) - 1, "cascade")
    names: list[Name] = []
    while True:
        if is_at(found, position, "only"):
            position += 1
        name, position = qualified(found, position)
        names.append(name)
        if position < len(found) and found[position].kind == OPERATOR and found[position].text == "*":
            position += 1
        if not is_at(found, position, ","):
            break
        position += 1
    writes = tuple(Write(Verb.TRUNCATE, name, counted=False) for name in names)
    return Shape(Command.UTILITY, names=frozenset(names), writes=writes, everything=cascade)


def _routine(found: Sequence[Token]) -> Shape:
    """CALL and DO: what they do cannot be seen, except that the text of a DO names what it writes."""
    bodies = [token.text for token in found if token.kind == STRING]
    words = frozenset(word for body in bodies for word in re.findall(r"\w+", body))
    lower = frozenset(word.lower() for word in words)
    settings = (("*", None, False),) if any(_SETTING_WORDS.search(body) for body in bodies) else ()
    return Shape(
        Command.UTILITY,
        opaque=True,
        unread=True,
        writing=found[0].text == "do",
        words=words | lower,
        settings=settings,
    )


_SIMPLE: dict[str, Callable[[Sequence[Token]], Shape]] = {
    "begin": _begin,
    "start": _begin,
    "commit": _commit,
    "end": _commit,
    "rollback": _rollback,
    "abort": _rollback,
    "savepoint": _savepoint,
    "release": _release,
    "execute": _execute,
    "deallocate": _deallocate,
    "fetch": _fetch,
    "move": _fetch,
    "close": _close,
    "discard": _discard,
    "set": _set,
    "reset": _reset,
    "truncate": _truncate,
    "alter": definitions.alter_or_drop,
    "drop": definitions.alter_or_drop,
    "import": definitions.import_schema,
    "refresh": definitions.refresh,
    "call": _routine,
    "do": _routine,
}
_NESTED: dict[str, Callable[[StatementReader, Sequence[Token]], Shape]] = {
    "prepare": StatementReader._prepare,
    "declare": StatementReader._declare,
    "explain": StatementReader._explain,
    "copy": StatementReader._copy,
    "create": StatementReader._create,
}
