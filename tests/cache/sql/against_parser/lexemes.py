"""A text's lexemes as PostgreSQL's own scanner finds them, in the terms of ``cache.sql.lexer``.

Imports ``postgast`` (libpg_query), which a machine may lack: only tests that ask for it import this.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from postgast import pg_query_pb2 as pb
from postgast import scan

from cache.sql.lexer import BIT_STRING, MARK, NAME, NUMBER, OPERATOR, PARAMETER, STRING, WORD


class Lexeme(NamedTuple):
    """One lexeme; ``start`` and ``end`` are positions in the text's UTF-8."""

    kind: int
    text: str
    """Folded (WORD), with quotes undone (NAME), as spelled (the rest); empty for a constant in quotes, whose value
    only the parse tree has."""
    start: int
    end: int
    national: bool = False


_KINDS = {
    pb.FCONST: NUMBER, pb.ICONST: NUMBER, pb.SCONST: STRING, pb.USCONST: STRING, pb.BCONST: BIT_STRING,
    pb.XCONST: BIT_STRING, pb.PARAM: PARAMETER, pb.UIDENT: NAME, pb.Op: OPERATOR, pb.LESS_EQUALS: OPERATOR,
    pb.GREATER_EQUALS: OPERATOR, pb.NOT_EQUALS: OPERATOR, pb.TYPECAST: MARK, pb.DOT_DOT: MARK,
    pb.COLON_EQUALS: MARK, pb.EQUALS_GREATER: MARK,
}  # fmt: skip
_MARKS = frozenset("()[],;.:")
_NAME_BYTES = 63


def lexemes(text: str) -> list[Lexeme]:
    """All lexemes of ``text``, without comments.

    Raises:
        PgQueryError: PostgreSQL's scanner refuses the text.
    """
    whole = text.encode()
    found: list[Lexeme] = []
    escapes_follow = False
    for token in scan(text).tokens:
        if token.token in (pb.SQL_COMMENT, pb.C_COMMENT):
            continue
        spelled = whole[token.start : token.end].decode()
        kind = _kind(token, spelled)
        if token.token == pb.UESCAPE and found and escapes_follow:
            continue  # UESCAPE and the character belong to the constant before
        before = found[-1] if found else None
        if kind == STRING and escapes_follow and _is_uescape(whole, before, token.start):
            found[-1] = found[-1]._replace(end=token.end)
            escapes_follow = False
            continue
        escapes_follow = token.token in (pb.USCONST, pb.UIDENT)
        if (
            kind == STRING
            and before is not None
            and before.end == token.start
            and before.text == "nchar"
            and before.end - before.start == 1
        ):
            # The scanner makes a key word and a string of N'…'.
            found[-1] = Lexeme(STRING, "", before.start, token.end, national=True)
            continue
        found.append(Lexeme(kind, _text(kind, spelled, token), token.start, token.end))
    return found


def spelled(text: str, found: Sequence[Lexeme]) -> list[str]:
    """The lexemes as they stand in the text."""
    whole = text.encode()
    return [whole[one.start : one.end].decode() for one in found]


@cache
def key_words() -> tuple[str, ...]:
    """Every key word of PostgreSQL's grammar, reserved or not."""
    found = set()
    for name in pb.Token.keys():  # noqa: SIM118 - it has keys, but is no dict
        word = name.removesuffix("_LA").removesuffix("_P").lower()
        if word.isidentifier() and scan(word).tokens[0].keyword_kind != pb.NO_KEYWORD:
            found.add(word)
    return tuple(sorted(found))


def _is_uescape(whole: bytes, before: Lexeme | None, start: int) -> bool:
    return before is not None and b"uescape" in whole[before.end : start].lower()


def _kind(token: pb.ScanToken, spelled: str) -> int:
    if token.token in _KINDS:
        return _KINDS[token.token]
    if token.keyword_kind != pb.NO_KEYWORD or token.token == pb.IDENT:
        return NAME if spelled.startswith('"') else WORD
    return MARK if spelled in _MARKS else OPERATOR


def _text(kind: int, spelled: str, token: pb.ScanToken) -> str:
    if kind == WORD:
        if token.token == pb.NCHAR and len(spelled) == 1:
            return "nchar"
        return _cut("".join(c.lower() if c.isascii() else c for c in spelled))
    if kind == NAME:
        return "" if token.token == pb.UIDENT else _cut(spelled[1:-1].replace('""', '"'))
    if kind == PARAMETER:
        return str(int(spelled[1:]))
    if kind in (STRING, BIT_STRING):
        return ""
    return "<>" if spelled == "!=" else spelled


def _cut(name: str) -> str:
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")
