"""Reads the parts that commands are made of from their tokens: names, strings, lists, types, constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.builtin_types import CONSTANT_TYPES
from cache.sql.lexer import MARK, NAME, NUMBER, OPERATOR, PARAMETER, STRING, WORD, Token
from cache.sql.plans import UNKNOWN, Operand, OperandSource
from cache.sql.statements import Name, UnreadError

if TYPE_CHECKING:
    from collections.abc import Sequence


def is_at(tokens: Sequence[Token], position: int, *texts: str) -> bool:
    """Whether the tokens at ``position`` are these words and marks."""
    part = tokens[position : position + len(texts)]
    return len(part) == len(texts) and all(
        token.kind in (WORD, MARK) and token.text == text for token, text in zip(part, texts, strict=True)
    )


def identifier(token: Token) -> str:
    """The name a token is. Raises UnreadError if it is none."""
    if token.kind not in (WORD, NAME):
        raise UnreadError("an identifier was expected")
    return token.text


def string(tokens: Sequence[Token], position: int) -> str | None:
    """The value of the string constant at ``position``; None if it is not certain."""
    token = tokens[position]
    if token.kind != STRING:
        raise UnreadError("a string was expected")
    return token.text if token.certain else None


def identifiers_in(tokens: Sequence[Token]) -> frozenset[str]:
    """Every word and quoted name, whatever it is used for."""
    return frozenset(token.text for token in tokens if token.kind in (WORD, NAME))


def qualified_name(tokens: Sequence[Token], position: int) -> tuple[Name, int]:
    """The relation name at ``position`` and where it ends."""
    parts = [identifier(tokens[position])]
    position += 1
    while is_at(tokens, position, "."):
        parts.append(identifier(tokens[position + 1]))
        position += 2
    return Name(parts[-2] if len(parts) > 1 else None, parts[-1]), position


def split_at_commas(tokens: Sequence[Token]) -> list[list[Token]]:
    """The parts between top-level commas."""
    parts: list[list[Token]] = [[]]
    level = 0
    for token in tokens:
        if token.kind == MARK and token.text in "([":
            level += 1
        elif token.kind == MARK and token.text in ")]":
            level -= 1
        if token.kind == MARK and token.text == "," and level == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def constant(part: Sequence[Token]) -> Operand | None:
    """The constant or parameter that an argument of EXECUTE is; None for an expression."""
    negative = len(part) == 2 and part[0].kind == OPERATOR and part[0].text == "-" and part[1].kind == NUMBER
    if negative:
        part = part[1:]
    if len(part) != 1:
        return None
    token = part[0]
    if token.kind in (STRING, NUMBER) and token.slot >= 0 and not token.is_list:
        return Operand(OperandSource.LITERAL, token.slot, negative)
    if token.kind == PARAMETER:
        return Operand(OperandSource.PARAMETER, int(token.text) - 1)
    keywords = {"null": OperandSource.NULL, "true": OperandSource.TRUE, "false": OperandSource.FALSE}
    return Operand(keywords[token.text]) if token.kind == WORD and token.text in keywords else None


_DECLARED = {name: row.name for name, row in CONSTANT_TYPES.items()} | {UNKNOWN: UNKNOWN}
"""``Operand.cast``'s name of each type in PREPARE's list, as it may be spelled there."""


def type_names(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Declared parameter types by ``Operand.cast``'s names; empty strings for those it has none for."""
    types, current, level, quoted = [], "", 0, False
    for token in (*tokens, Token(MARK, ",")):
        if token.kind == MARK and token.text in "([":
            level += 1
        elif token.kind == MARK and token.text in ")]":
            level -= 1
        if token.kind == MARK and token.text == "," and level == 0:
            name, array = current.removesuffix("[]"), current.endswith("[]")
            # A key word in quotes is another type's name: "int" is not integer.
            known = "" if quoted and _DECLARED.get(name, "") != name else _DECLARED.get(name, "")
            types.append(known + "[]" if array and known else known)
            current, quoted = "", False
        else:
            current += (" " if current and token.kind == WORD else "") + token.text
            quoted = quoted or token.kind == NAME
    return tuple(types)
