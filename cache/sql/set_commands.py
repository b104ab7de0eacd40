"""Which run-time parameters SET, RESET and set_config() set, and to what, as far as their text makes it certain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.sql.canonical import closing
from cache.sql.lexer import MARK, NAME, NUMBER, OPERATOR, STRING, WORD, Token
from cache.sql.plans import ANY_SETTING, RESET_ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

Setting = tuple[str, str | None, bool]
"""Lower-case name (or ANY_SETTING, RESET_ALL), value (None: not certain, or reset), whether SET LOCAL."""

ANY: Setting = (ANY_SETTING, None, False)
ALL: Setting = (RESET_ALL, None, False)

_LISTS = frozenset(["search_path", "datestyle", "session_preload_libraries", "local_preload_libraries"])
_QUOTED_LISTS = _LISTS - {"datestyle"}
"""Lists whose elements are identifiers, so their text is quoted."""


def of_set(tokens: Sequence[Token]) -> tuple[Setting, ...]:
    """The parameters that a SET statement's tokens set."""
    position, local = 1, False
    if _word(tokens, 1) in ("local", "session") and not _is_assignment(tokens, 2):
        local = _word(tokens, 1) == "local"
        position = 2
    word = _word(tokens, position)
    if word in ("transaction", "characteristics"):
        return ()  # the next transaction's isolation and access mode
    if word == "time" and _word(tokens, position + 1) == "zone":
        return (("timezone", _plain(tokens[position + 2 :]), local),)
    if word == "names":
        return (("client_encoding", _plain(tokens[position + 1 :]), local),)
    if word == "schema":
        value = _plain(tokens[position + 1 :])
        return (("search_path", None if value is None else _quoted(value), local),)
    if word == "role":
        return (("role", _plain(tokens[position + 1 :]), local),)
    if word == "authorization":
        return (("session_authorization", _plain(tokens[position + 1 :]), local),)
    if word == "xml":
        return (("xmloption", None, local),)
    name, position = _name(tokens, position)
    if name is None or not _is_assignment(tokens, position):
        return ((ANY_SETTING, None, local),)
    return ((name, _value(name, tokens[position + 1 :]), local),)


def of_reset(tokens: Sequence[Token]) -> tuple[Setting, ...]:
    """The parameters that a RESET statement's tokens reset."""
    word = _word(tokens, 1)
    if word == "all":
        return (ALL,)
    if word == "time":
        return (("timezone", None, False),)
    if word == "session":
        return (("session_authorization", None, False), ("role", None, False))
    name, _ = _name(tokens, 1)
    return (ANY,) if name is None else ((name, None, False),)


def of_calls(tokens: Sequence[Token]) -> tuple[Setting, ...]:
    """The parameters that the calls of set_config() among a statement's tokens set."""
    settings: list[Setting] = []
    for position, token in enumerate(tokens):
        if token.kind not in (WORD, NAME) or token.text != "set_config" or not _mark(tokens, position + 1, "("):
            continue
        arguments = tokens[position + 2 : closing(tokens, position + 1)]
        if len(arguments) != 5 or arguments[0].kind != STRING or not arguments[0].certain:
            return (ANY,)
        local = arguments[4].text != "false" or arguments[4].kind != WORD
        if arguments[4].kind != WORD or arguments[4].text not in ("true", "false"):
            return (ANY,)
        value = arguments[2].text if arguments[2].kind == STRING and arguments[2].certain else None
        settings.append((arguments[0].text.lower(), value, local))
    return tuple(settings) or (ANY,)


def _word(tokens: Sequence[Token], position: int) -> str:
    return tokens[position].text if position < len(tokens) and tokens[position].kind == WORD else ""


def _mark(tokens: Sequence[Token], position: int, text: str) -> bool:
    return position < len(tokens) and tokens[position].kind == MARK and tokens[position].text == text


def _is_assignment(tokens: Sequence[Token], position: int) -> bool:
    if _word(tokens, position) == "to":
        return True
    return position < len(tokens) and tokens[position].kind == OPERATOR and tokens[position].text == "="


def _name(tokens: Sequence[Token], position: int) -> tuple[str | None, int]:
    """A parameter's name, which may have dots, in lower case."""
    parts: list[str] = []
    while position < len(tokens) and tokens[position].kind in (WORD, NAME):
        parts.append(tokens[position].text)
        position += 1
        if not _mark(tokens, position, "."):
            break
        position += 1
    return (".".join(parts).lower() or None), position


def _plain(tokens: Sequence[Token]) -> str | None:
    """A single value's text; None for DEFAULT, LOCAL and whatever is not one plain value."""
    negative = len(tokens) == 2 and tokens[0].kind == OPERATOR and tokens[0].text == "-"
    if negative:
        tokens = tokens[1:]
    if len(tokens) != 1:
        return None
    token = tokens[0]
    if token.kind == WORD and token.text in ("default", "local"):
        return None
    if token.kind in (WORD, NAME, NUMBER) or (token.kind == STRING and token.certain):
        return "-" + token.text if negative else token.text
    return None


def _value(name: str, tokens: Sequence[Token]) -> str | None:
    values: list[str] = []
    for position in range(0, len(tokens), 2):
        if position and not _mark(tokens, position - 1, ","):
            return _plain(tokens) if not values[1:] else None
        value = _plain(tokens[position : position + 1])
        if value is None:
            return _plain(tokens)
        values.append(value)
    if len(tokens) != 2 * len(values) - 1 or (len(values) > 1 and name not in _LISTS):
        return _plain(tokens)
    return ", ".join(_quoted(value) if name in _QUOTED_LISTS else value for value in values)


def _quoted(identifier: str) -> str:
    """An identifier as PostgreSQL quotes it when it must."""
    plain = identifier.isidentifier() and identifier.isascii() and identifier == identifier.lower()
    return identifier if plain else '"' + identifier.replace('"', '""') + '"'
