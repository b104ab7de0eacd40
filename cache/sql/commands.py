"""Reads a statement from its tokens: queries and writes with the SQL parser, everything else by its leading words.

Transaction control, prepared statements, cursors, settings, DDL and utilities are recognised by their first words, as
in PostgreSQL's grammar. A statement within one (PREPARE's, a cursor's query) is read like any other.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from cache.sql import canonical, definitions, queries, set_commands
from cache.sql.canonical import closing
from cache.sql.lexer import MARK, NAME, OPERATOR, PARAMETER, STRING, WORD, LexicalError, Token
from cache.sql.plans import Command, Operand
from cache.sql.statements import Name, ReturningAliases, Statement, UnreadError, Verb, Write
from cache.sql.tokens import (
    constant,
    identifier,
    identifiers_in,
    is_at,
    qualified_name,
    split_at_commas,
    string,
    type_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cache.counts import ErrorReport

MAX_QUERIES = 300
"""Queries of one text that the SQL parser gets; further ones are opaque."""

_QUERIES = frozenset(["select", "values", "table", "with", "insert", "update", "delete", "merge"])
_MODIFYING = frozenset(["insert", "update", "delete", "merge"])
_WITHOUT_EFFECT = canonical.word_set(
    "lock vacuum analyze analyse cluster reindex checkpoint listen unlisten notify load comment grant revoke security "
    "reassign wait"
)
_INTO_WORDS = ("temp", "temporary", "local", "global", "unlogged", "table")
_AFTER_INTO = canonical.word_set("from where group having window union intersect except order limit offset fetch for")
_SETTING_WORDS = re.compile(r"set_config|search_path|standard_conforming_strings|client_encoding", re.IGNORECASE)


class StatementReader:
    """Reads the statements of one text, in their order.

    At most MAX_QUERIES of them go to the SQL parser, which bounds the time a text takes; further ones are opaque.
    """

    def __init__(self, on_internal_error: ErrorReport | None = None) -> None:
        self._on_internal_error = on_internal_error
        self._queries_left = MAX_QUERIES

    def read(self, tokens: Sequence[Token]) -> Statement:
        """One statement, from its tokens without the semicolon.

        Does not raise: a statement that cannot be followed is ``unread``. So is one that a fault of this package stops,
        which is reported to ``on_internal_error``; without that it is raised.
        """
        try:
            return self._read(tokens)
        except (UnreadError, LexicalError, RecursionError, IndexError):  # IndexError: the statement is cut short
            return unread(tokens)
        except Exception as error:
            if self._on_internal_error is None:
                raise
            self._on_internal_error("sql", error)
            return unread(tokens)

    def _read(self, tokens: Sequence[Token]) -> Statement:
        first = tokens[0]
        if first.kind == MARK and first.text == "(":
            return self._query(tokens)
        if first.kind != WORD:
            raise UnreadError("a statement starts with a word")
        word = first.text
        if word in _QUERIES:
            return self._query(tokens)
        simple = _SIMPLE.get(word)
        if simple is not None:
            return simple(tokens)
        nested = _NESTED.get(word)
        if nested is not None:
            return nested(self, tokens)
        if word in _WITHOUT_EFFECT:
            return Statement(Command.UTILITY)
        if word == "show":
            return Statement(Command.NONE)
        raise UnreadError(f"an unknown command {word}")

    def _query(self, tokens: Sequence[Token]) -> Statement:
        if canonical.depth(tokens) > canonical.MAX_DEPTH:
            raise UnreadError("nested too deeply")
        ignores_keys = any(is_at(tokens, position, "overriding", "user") for position in range(len(tokens)))
        parameters = [int(token.text) - 1 for token in tokens if token.kind == PARAMETER]
        tokens = canonical.simplified(tokens)
        shorter = canonical.shortened(tokens) if tokens[0].text == "insert" else None
        tokens = tokens if shorter is None else shorter
        tokens, temporary = _without_into_words(tokens)
        tokens, aliases = _without_returning_aliases(tokens)
        if len(tokens) > canonical.MAX_PARSED:
            raise UnreadError("too long")
        if not self._queries_left:
            raise UnreadError("too many statements in one text")
        self._queries_left -= 1
        result = queries.read_query(tokens, aliases)
        for index in parameters:
            result.parameters[index] = result.parameters.get(index, 0) + 1
        if result.created:  # SELECT INTO
            result.temporary = tuple(
                name.name for name in result.created if temporary or definitions.is_temporary(name)
            )
            result.command = Command.UTILITY
            result.references = ()
        for write in result.writes:
            if ignores_keys or shorter is not None:
                # Identity columns get other values than VALUES has; or not all rows were read.
                write.rows = None
            # An UPDATE of the view pg_settings is a SET.
            if write.target.name == "pg_settings":
                result.settings += (set_commands.ANY,)
        if any(function.name == "set_config" for function in result.functions):
            result.settings += set_commands.of_calls(tokens)
            result.command = Command.SET
        return result

    def _prepare(self, tokens: Sequence[Token]) -> Statement:
        if is_at(tokens, 1, "transaction"):
            return Statement(Command.PREPARE_TRANSACTION, name=string(tokens, 2))
        name, position = identifier(tokens[1]), 2
        types: tuple[str, ...] = ()
        if is_at(tokens, 2, "("):
            end = closing(tokens, 2)
            types = type_names(tokens[3:end])
            position = end + 1
        if not is_at(tokens, position, "as"):
            raise UnreadError("PREPARE without AS")
        return Statement(Command.PREPARE, name=name, inner=self.read(tokens[position + 1 :]), types=types)

    def _declare(self, tokens: Sequence[Token]) -> Statement:
        name = identifier(tokens[1])
        position = next((i for i in range(2, len(tokens)) if is_at(tokens, i, "for")), None)
        if position is None:
            raise UnreadError("DECLARE without FOR")
        holdable = any(is_at(tokens, i, "with", "hold") for i in range(2, position))
        return Statement(Command.DECLARE, name=name, inner=self.read(tokens[position + 1 :]), holdable=holdable)

    def _explain(self, tokens: Sequence[Token]) -> Statement:
        position, runs = 1, False
        if is_at(tokens, 1, "("):
            end = closing(tokens, 1)
            # Either options or a query in parentheses; the first word decides.
            if not (tokens[2].kind == WORD and tokens[2].text in _QUERIES) and tokens[2].text != "(":
                for option in split_at_commas(tokens[2:end]):
                    if option and option[0].text in ("analyze", "analyse"):
                        runs = runs or len(option) < 2 or option[1].text.lower() not in ("false", "off", "0")
                position = end + 1
        while position < len(tokens) and tokens[position].text in ("analyze", "analyse", "verbose"):
            runs = runs or tokens[position].text != "verbose"
            position += 1
        inner = self.read(tokens[position:])
        if not runs:
            return Statement(Command.NONE, names=inner.names, explained=True)
        if inner.command is Command.EXECUTE:
            # The prepared statement is run, but its rows and its row count are not shown.
            return Statement(Command.NONE, any_table=True, opaque=True, explained=True)
        if inner.inner is not None:
            inner = inner.inner  # DECLARE: its query is run as it is
        inner.explained = True
        inner.references = ()
        inner.command = Command.NONE
        for write in inner.writes:
            write.counted = write.returning = False
        return inner

    def _copy(self, tokens: Sequence[Token]) -> Statement:
        if is_at(tokens, 1, "("):
            inner = self.read(tokens[2 : closing(tokens, 1)])
            inner.command = Command.COPY
            inner.references = ()
            for write in inner.writes:
                write.counted = write.returning = False
            return inner
        start = 2 if is_at(tokens, 1, "binary") else 1
        name, position = qualified_name(tokens, start)
        if is_at(tokens, position, "("):
            position = closing(tokens, position) + 1
        if is_at(tokens, position, "to"):
            return Statement(Command.COPY, names=frozenset([name]))
        if not is_at(tokens, position, "from"):
            raise UnreadError("COPY without FROM or TO")
        return Statement(Command.COPY, names=frozenset([name]), writes=(Write(Verb.COPY, name),))

    def _create(self, tokens: Sequence[Token]) -> Statement:
        result, query = definitions.create(tokens)
        if query is not None:
            definitions.run_query(result, self.read(query))
        return result


def unread(tokens: Sequence[Token]) -> Statement:
    """A statement that cannot be followed: its identifiers are all that is known of it."""
    first = tokens[0].text if tokens and tokens[0].kind == WORD else "("
    if first in ("select", "values", "table"):
        writing = False
    elif first in ("with", "("):
        writing = any(_modifies(token, tokens[position - 1]) for position, token in enumerate(tokens) if position)
    else:
        writing = True
    made = list(_made_by_into(tokens))
    return Statement(
        Command.NONE,
        unread=True,
        opaque=True,
        writing=writing,
        identifiers=identifiers_in(tokens),
        created=tuple(name for name, _ in made),
        temporary=tuple(name.name for name, temporary in made if temporary),
    )


def _modifies(token: Token, before: Token) -> bool:
    return token.kind == WORD and token.text in _MODIFYING and before.text not in ("for", "key")


def _without_into_words(tokens: list[Token]) -> tuple[list[Token], bool]:
    """The tokens without TEMP, UNLOGGED and TABLE in SELECT INTO, and whether the table is temporary."""
    for position in range(len(tokens)):
        if _is_into(tokens, position):
            end, temporary = _into_target(tokens, position)
            return [*tokens[: position + 1], *tokens[end:]], temporary
    return tokens, False


def _is_into(tokens: Sequence[Token], position: int) -> bool:
    """The INTO of a SELECT, not INSERT's or MERGE's, and no label or field."""
    if not is_at(tokens, position, "into") or position == 0:
        return False
    before = tokens[position - 1]
    if before.kind == WORD and before.text in ("insert", "merge"):
        return not _begins_statement(tokens, position - 1)
    return before.kind not in (WORD, MARK) or before.text not in ("as", ".")


def _begins_statement(tokens: Sequence[Token], position: int) -> bool:
    """INSERT or MERGE, and no column or label that is called so."""
    if position == 0 or tokens[0].text not in ("select", "with", "("):
        return True
    before = tokens[position - 1]
    return before.kind == MARK and (before.text == "(" or (before.text == ")" and tokens[0].text == "with"))


def _into_target(tokens: Sequence[Token], position: int) -> tuple[int, bool]:
    """Where the name after INTO begins, and whether the table is temporary."""
    end, temporary = position + 1, False
    while end + 1 < len(tokens) and any(is_at(tokens, end, word) for word in _INTO_WORDS):
        after = tokens[end + 1]
        if (after.kind == WORD and after.text in _AFTER_INTO) or after.kind not in (WORD, NAME):
            break  # the table itself is called so
        temporary = temporary or tokens[end].text in ("temp", "temporary")
        end += 1
    return end, temporary


def _made_by_into(tokens: Sequence[Token]) -> Iterator[tuple[Name, bool]]:
    """The tables that SELECT INTO may make, and whether each is temporary."""
    for position in range(len(tokens)):
        if _is_into(tokens, position):
            start, temporary = _into_target(tokens, position)
            with contextlib.suppress(UnreadError, IndexError):
                name, _ = qualified_name(tokens, start)
                yield name, temporary or definitions.is_temporary(name)


def _without_returning_aliases(tokens: list[Token]) -> tuple[list[Token], ReturningAliases]:
    """The tokens without ``WITH (OLD AS o, NEW AS n)`` after RETURNING, and the names it gives to the rows."""
    old, new = {"old"}, {"new"}
    result: list[Token] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        result.append(token)
        position += 1
        if token.kind == WORD and token.text == "returning" and is_at(tokens, position, "with", "("):
            end = closing(tokens, position)
            for index in range(position, end):
                if (
                    tokens[index].kind == WORD
                    and tokens[index].text in ("old", "new")
                    and is_at(tokens, index + 1, "as")
                ):
                    (old if tokens[index].text == "old" else new).add(tokens[index + 2].text)
            position = end + 1
    return result, ReturningAliases(frozenset(old), frozenset(new))


# Transactions


def _begin(tokens: Sequence[Token]) -> Statement:
    return Statement(Command.BEGIN)


def _chain(tokens: Sequence[Token]) -> bool:
    words = [token.text for token in tokens]
    return "chain" in words and "no" not in words


def _commit(tokens: Sequence[Token]) -> Statement:
    if is_at(tokens, 1, "prepared"):
        return Statement(Command.COMMIT_PREPARED, name=string(tokens, 2))
    return Statement(Command.COMMIT, chain=_chain(tokens))


def _rollback(tokens: Sequence[Token]) -> Statement:
    if is_at(tokens, 1, "prepared"):
        return Statement(Command.ROLLBACK_PREPARED, name=string(tokens, 2))
    words = [token.text if token.kind == WORD else "" for token in tokens]
    if "to" in words[1:3]:
        return Statement(Command.ROLLBACK_TO, name=identifier(tokens[-1]))
    return Statement(Command.ROLLBACK, chain=_chain(tokens))


def _savepoint(tokens: Sequence[Token]) -> Statement:
    return Statement(Command.SAVEPOINT, name=identifier(tokens[1]))


def _release(tokens: Sequence[Token]) -> Statement:
    return Statement(Command.RELEASE, name=identifier(tokens[-1]))


# Prepared statements and cursors


def _execute(tokens: Sequence[Token]) -> Statement:
    name = identifier(tokens[1])
    if len(tokens) == 2:
        return Statement(Command.EXECUTE, name=name)
    if not is_at(tokens, 2, "(") or closing(tokens, 2) != len(tokens) - 1:
        raise UnreadError("EXECUTE without its arguments")
    arguments: list[Operand | None] = []
    called = False
    for part in split_at_commas(tokens[3:-1]):
        arguments.append(constant(part))
        called = called or any(
            is_at([*part, Token(MARK, "")], position + 1, "(")
            for position, token in enumerate(part)
            if token.kind != MARK
        )
    return Statement(Command.EXECUTE, name=name, arguments=tuple(arguments), opaque=called)


def _deallocate(tokens: Sequence[Token]) -> Statement:
    last = tokens[-1]
    everything = last.kind == WORD and last.text == "all"
    return Statement(Command.DEALLOCATE, name=None if everything else identifier(last))


def _fetch(tokens: Sequence[Token]) -> Statement:
    return Statement(Command.FETCH, name=identifier(tokens[-1]))


def _close(tokens: Sequence[Token]) -> Statement:
    last = tokens[-1]
    everything = last.kind == WORD and last.text == "all"
    return Statement(Command.CLOSE, name=None if everything else identifier(last))


def _discard(tokens: Sequence[Token]) -> Statement:
    if is_at(tokens, 1, "temp") or is_at(tokens, 1, "temporary"):
        return Statement(Command.DISCARD_TEMP)
    if not is_at(tokens, 1, "all"):
        return Statement(Command.UTILITY)
    return Statement(Command.DISCARD_ALL, settings=(set_commands.ANY,))


# Settings


def _set(tokens: Sequence[Token]) -> Statement:
    if is_at(tokens, 1, "constraints"):
        return Statement(Command.UTILITY)
    # SET TRANSACTION SNAPSHOT: the transaction may read what was there before it began.
    older = any(is_at(tokens, position, "transaction", "snapshot") for position in (1, 2))
    return Statement(Command.SET, settings=set_commands.of_set(tokens), opaque=older)


def _reset(tokens: Sequence[Token]) -> Statement:
    return Statement(Command.SET, settings=set_commands.of_reset(tokens))


# TRUNCATE, CALL and DO


def _truncate(tokens: Sequence[Token]) -> Statement:
    position = 2 if is_at(tokens, 1, "table") else 1
    cascade = is_at(tokens, len(tokens) - 1, "cascade")
    names: list[Name] = []
    while True:
        if is_at(tokens, position, "only"):
            position += 1
        name, position = qualified_name(tokens, position)
        names.append(name)
        if position < len(tokens) and tokens[position].kind == OPERATOR and tokens[position].text == "*":
            position += 1
        if not is_at(tokens, position, ","):
            break
        position += 1
    writes = tuple(Write(Verb.TRUNCATE, name, counted=False) for name in names)
    return Statement(Command.UTILITY, names=frozenset(names), writes=writes, any_table=cascade)


def _routine(tokens: Sequence[Token]) -> Statement:
    """CALL and DO: what they do is not known, but the text of a DO names the tables that it writes."""
    bodies = [token.text for token in tokens if token.kind == STRING]
    words = frozenset(word for body in bodies for word in re.findall(r"\w+", body))
    lower = frozenset(word.lower() for word in words)
    settings = (set_commands.ANY,) if any(_SETTING_WORDS.search(body) for body in bodies) else ()
    return Statement(
        Command.UTILITY,
        opaque=True,
        unread=True,
        writing=tokens[0].text == "do",
        identifiers=words | lower,
        settings=settings,
    )


_SIMPLE: dict[str, Callable[[Sequence[Token]], Statement]] = {
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
_NESTED: dict[str, Callable[[StatementReader, Sequence[Token]], Statement]] = {
    "prepare": StatementReader._prepare,
    "declare": StatementReader._declare,
    "explain": StatementReader._explain,
    "copy": StatementReader._copy,
    "create": StatementReader._create,
}
