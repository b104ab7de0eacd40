"""SQL text as PostgreSQL's own lexer reads it (manual: "Lexical Structure"), or an error where that is not certain.

The parser used for whole statements has a lexer of its own, made for many dialects; it never sees the original text,
only ``canonical`` text written from these tokens. Standard library only; knows lexemes, not grammar.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cache.sql.string_constants import BITS, ESCAPED, GAP, PLAIN, MalformedEscapeError, dollar_tag, undoubled, unescaped

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TOKENS = 60_000
"""A text with more lexemes is not read: the time it takes must be bounded."""

WORD = 0
"""An unquoted identifier or key word, in lower case."""
NAME = 1
"""A quoted identifier."""
STRING = 2
"""A string constant of any spelling."""
NUMBER = 3
PARAMETER = 4
OPERATOR = 5
MARK = 6
"""``( ) [ ] , ; . .. : :: := =>``"""
BIT_STRING = 7
"""``B'…'`` or ``X'…'``."""


class Token(NamedTuple):
    """One lexeme."""

    kind: int
    text: str
    """Its text: folded (WORD), with quotes and escapes undone (NAME, STRING, BIT_STRING), the digits (PARAMETER)."""
    certain: bool = True
    """STRING: ``text`` is its value in every encoding and version of the server."""
    national: bool = False
    """STRING: ``N'…'``, a constant of type bpchar."""
    slot: int = -1
    """STRING, NUMBER: its index among the literals of the text; -1 for a constant that is none."""
    is_list: bool = False
    """STRING: the literal is an array that stands for a long IN list."""


class LexicalError(ValueError):
    """PostgreSQL would refuse the text, or may read it in another way than this module."""


# As in ``string_constants``: each pattern can match a given text in one way only.
_QUOTED = r'"[^"]*(?:""[^"]*)*"(?!")'
_BEYOND_ASCII = r"\x80-\U0010ffff"
_DIGITS = r"\d+(?:_\d+)*"


def _pattern(string: str) -> re.Pattern[str]:
    """One lexeme; ``string`` is what a plain string constant looks like."""
    return re.compile(
        rf"""
      (?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<escape>[eE]{ESCAPED})
    | (?P<bits>{BITS})
    | (?P<unicode>[uU]&{PLAIN})
    | (?P<unicode_name>[uU]&{_QUOTED})
    | (?P<national>[nN]{string})
    | (?P<string>{string})
    | (?P<word>(?![eEbBxXnN]'|[uU]&['"])[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    | (?P<name>{_QUOTED})
    | (?P<number>(?:0[xX](?:_?[0-9A-Fa-f])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+
        | {_DIGITS}(?=\.\.)
        | (?:{_DIGITS}(?:\.(?:{_DIGITS})?|(?!\.))|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?)
        (?![A-Za-z0-9_$\x80-\U0010ffff]))
    | (?P<parameter>\$\d+(?![A-Za-z0-9_$\x80-\U0010ffff]))
    | (?P<dollar>{dollar_tag(_BEYOND_ASCII)})
    | (?P<mark>::|:=|=>(?![~!@\#^&|`?+\-*/%<>=])|\.\.|[(),;.:\[\]])
    | (?P<operator>[~!@\#^&|`?+\-*/%<>=]+)
    """,
        re.VERBOSE | re.ASCII,
    )


_CONFORMING = _pattern(PLAIN)
_NONCONFORMING = _pattern(ESCAPED)
_CONTINUED = re.compile(rf"{GAP}({PLAIN})")
_CONTINUED_ESCAPED = re.compile(rf"{GAP}({ESCAPED})")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SPACE = re.compile(r"(?:[ \t\n\r\f\v]|--[^\n\r]*(?![^\n\r]))*(/\*)?")
_UESCAPE = re.compile(r"uescape(?![A-Za-z0-9_$\x80-\U0010ffff])", re.IGNORECASE)
_UESCAPE_CHARACTER = re.compile(r"'([^0-9A-Fa-f+'\"\s])'(?!')", re.ASCII)
_UPPER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_NAME_BYTES = 63
"""NAMEDATALEN - 1: longer identifiers are cut."""
# An operator of several characters may end in + or - only if it holds one of these.
_UNUSUAL = frozenset("~!@#^&|`?%")


def tokenize(text: str, conforming_strings: bool = True) -> list[Token]:
    """All lexemes of ``text``, without white space and comments.

    Raises:
        LexicalError: the text is unterminated, has junk PostgreSQL refuses or reads in ways that depend on its
            version, or has more than ``MAX_TOKENS`` lexemes.
    """
    tokens: list[Token] = []
    position, end = 0, len(text)
    match_at = (_CONFORMING if conforming_strings else _NONCONFORMING).match
    if "\0" in text:
        raise LexicalError("a NUL character")
    while position < end:
        match = match_at(text, position)
        if match is None:
            raise LexicalError(f"unreadable at character {position + 1}")
        kind, spelled, position = match.lastgroup, match.group(), match.end()
        if kind == "space":
            continue
        if kind == "word":
            tokens.append(Token(WORD, _truncated(spelled.translate(_UPPER))))
        elif kind == "mark":
            tokens.append(Token(MARK, spelled))
        elif kind == "number":
            tokens.append(Token(NUMBER, spelled))
        elif kind == "parameter":
            tokens.append(Token(PARAMETER, str(int(spelled[1:]))))
        elif kind == "name":
            tokens.append(Token(NAME, _quoted_identifier(undoubled(spelled[1:-1], '"'))))
        elif kind == "operator":
            spelled = _operator(spelled)
            position = match.start() + len(spelled)
            tokens.append(Token(MARK if spelled == "=>" else OPERATOR, spelled))
        elif kind == "comment":
            position = _after_comment(text, position)
        else:
            token, position = _constant(text, kind or "", spelled, position, conforming_strings)
            tokens.append(token)
        if len(tokens) > MAX_TOKENS:
            raise LexicalError(f"more than {MAX_TOKENS} lexemes")
    return tokens


def split_statements(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens of each statement, without the semicolons; empty statements are left out, as PostgreSQL does."""
    result: list[list[Token]] = []
    current: list[Token] = []
    depth = body = 0
    for token in tokens:
        if token.kind == MARK:
            if token.text == ";" and depth <= 0 and not body:
                if current:
                    result.append(current)
                current = []
                continue
            if token.text == "(":
                depth += 1
            elif token.text == ")":
                depth -= 1
        elif token.kind == WORD and depth <= 0 and current:
            # The body of a routine in standard SQL holds semicolons: CREATE FUNCTION … BEGIN ATOMIC …; …; END. Anywhere
            # else, also in the statements of the body, these words may be names.
            before = current[-1]
            if body:
                if token.text == "end" and (len(current) == body or (before.kind == MARK and before.text == ";")):
                    body = 0
            elif token.text == "atomic" and before.kind == WORD and before.text == "begin" and _is_routine(current):
                body = len(current) + 1
        current.append(token)
    if current:
        result.append(current)
    return result


def _is_routine(tokens: Sequence[Token]) -> bool:
    words = [token.text if token.kind == WORD else "" for token in tokens[:4]]
    if words[1:3] == ["or", "replace"]:
        del words[1:3]
    return words[0] == "create" and words[1] in ("function", "procedure")


def _constant(text: str, kind: str, spelled: str, position: int, conforming: bool) -> tuple[Token, int]:
    """The constant (or ``U&`` identifier) that starts with ``spelled``, and where it ends, further lines included."""
    if kind == "dollar":
        end = text.find(spelled, position)
        if end < 0:
            raise LexicalError("unterminated dollar-quoted string")
        return Token(STRING, text[position:end]), end + len(spelled)
    if kind == "bits":
        if _CONTINUED.match(text, position):
            raise LexicalError("bit string continued on a further line")
        return Token(BIT_STRING, spelled[2:-1]), position
    if kind in ("unicode", "unicode_name"):
        return _unicode(text, kind, spelled, position, conforming)
    escaped = kind == "escape" or not conforming
    body = spelled[spelled.index("'") + 1 : -1]
    further = _CONTINUED_ESCAPED if escaped else _CONTINUED
    while (match := further.match(text, position)) is not None:
        body += match.group(1)[1:-1]
        position = match.end()
    if not escaped:
        return Token(STRING, undoubled(body, "'"), national=kind == "national"), position
    try:
        value, certain = unescaped(body.encode())
    except MalformedEscapeError as error:
        raise LexicalError(str(error)) from None
    return Token(STRING, value.decode(), certain, kind == "national"), position


def _unicode(text: str, kind: str, spelled: str, position: int, conforming: bool) -> tuple[Token, int]:
    if kind == "unicode" and not conforming:
        raise LexicalError("U&'' while standard_conforming_strings is off")
    quote = spelled[2]
    body = undoubled(spelled[3:-1], quote)
    if kind == "unicode":
        while (match := _CONTINUED.match(text, position)) is not None:
            body += undoubled(match.group(1)[1:-1], quote)
            position = match.end()
    escape = "\\"
    if (match := _UESCAPE.match(text, _after_space(text, position))) is not None:
        match = _UESCAPE_CHARACTER.match(text, _after_space(text, match.end()))
        if match is None or _CONTINUED.match(text, match.end()) is not None:
            raise LexicalError("invalid UESCAPE")
        escape, position = match.group(1), match.end()
    mark = re.escape(escape)
    pattern = rf"{mark}(?:({mark})|\+([0-9A-Fa-f]{{6}})|([0-9A-Fa-f]{{4}})|)"

    def replace(match: re.Match[str]) -> str:
        doubled, six, four = match.groups()
        if doubled is not None:
            return escape
        if six is None and four is None:
            raise LexicalError("invalid Unicode escape")
        code = int(six or four, 16)
        if code == 0 or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise LexicalError("Unicode escape outside the basic planes, or a surrogate")
        return chr(code)

    value = re.sub(pattern, replace, body)
    if kind == "unicode":
        return Token(STRING, value, certain=False), position
    return Token(NAME, _quoted_identifier(value)), position


def _operator(spelled: str) -> str:
    """How much of a run of operator characters is one operator."""
    for comment in ("--", "/*"):
        cut = spelled.find(comment)
        if cut > 0:
            spelled = spelled[:cut]
    if len(spelled) > 1 and spelled[-1] in "+-" and not _UNUSUAL.intersection(spelled):
        while len(spelled) > 1 and spelled[-1] in "+-":
            spelled = spelled[:-1]
    return "<>" if spelled == "!=" else spelled


def _after_comment(text: str, position: int) -> int:
    depth = 1
    while depth:
        match = _COMMENT_EDGE.search(text, position)
        if match is None:
            raise LexicalError("unterminated comment")
        depth += 1 if match.group() == "/*" else -1
        position = match.end()
    return position


def _after_space(text: str, position: int) -> int:
    """Where the white space and comments at ``position`` end."""
    while True:
        match = _SPACE.match(text, position)
        assert match is not None
        position = match.end()
        if match.group(1) is None:
            return position
        position = _after_comment(text, position)


def _quoted_identifier(name: str) -> str:
    if not name:
        raise LexicalError("zero-length quoted identifier")
    return _truncated(name)


def _truncated(name: str) -> str:
    """An identifier as PostgreSQL keeps it: at most 63 bytes, whole characters."""
    if len(name) * 4 <= _NAME_BYTES or len(name.encode()) <= _NAME_BYTES:
        return name
    return name.encode()[:_NAME_BYTES].decode(errors="ignore")
