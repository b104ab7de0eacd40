r"""Finds the literals of a SQL text, so that statements that differ only in literals share one plan.

``split`` turns a text into a *template*, in which every literal is a placeholder that keeps only the literal's class,
and the literals themselves, with quotes and escapes undone. It reads the text as PostgreSQL's own lexer does and gives
up (None) at the slightest doubt: the caller then analyses the exact text. It knows lexemes, not grammar, with the four
exceptions below.

The placeholder of *slot* i, the i-th literal, is a NUL and a class letter; no text that ``split`` accepts holds a NUL,
so a template can never be mistaken for an exact text and both may be keys of one memo. ``parseable`` writes a template
as SQL whose i-th constant ``slot_of`` recognises, whatever the parser does to the rest.

=============================  =========================================================================================
kept in the template           ``$1``, ``B''`` and ``X''`` constants, identifiers, a minus sign before a number, casts,
                               the type word of ``DATE '…'``, and numbers that modify a type, ``varchar(10)``: those
                               decide what the statement means, so another number must be another template
literals                       strings (plain, continued on a further line, ``E''``, dollar-quoted), runs of digits
                               ("integer", whatever their size) and other plain numbers ("decimal")
dropped                        comments, replaced by one space: tracing libraries put a new id into each
None                           ``U&''``, ``U&""``, ``N''``, escapes whose bytes depend on an encoding, ``0x1F``,
                               ``1_000``, ``123abc``, anything unterminated, a text with NUL, over 64 KiB or 1,000
                               literals; any backslash while standard_conforming_strings is off
=============================  =========================================================================================

Grammar enters in four places. A statement, the first or one after a semicolon, must begin with a word of ``_FIRST``;
others (SET, DDL, transaction commands) are rare, and their literals decide what they mean. For the same reason no text
that names ``set_config`` or ``pg_settings`` has a template. Numbers in parentheses after a type's name stay, as said.
And a list of more than ``LONG_LIST`` plain constants of one class, ``IN (1, 2, …)``, is *one* slot, so that the number
of templates is bounded however long the lists are: its literal has the kind "integer[]" or "string[]", and its value is
the list as PostgreSQL's text of an array, ``{1, 2, …}``; the statement means ``= ANY`` of that array. ``parseable``
leaves ``IN (…)`` with one constant there, which ``list_slot_of`` recognises and ``slot_of`` does not. Shorter lists
have a slot for each element and a template for each length.

A literal that stands for a position (``ORDER BY 1``, ``GROUP BY 1``) or a count (``LIMIT 1``) is a slot like any other:
a plan says which columns and rows a statement may show or touch, which order, grouping and number do not change.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cache.builtin_types import TABLE
from cache.sql import lexer
from cache.sql.canonical import LONG_LIST
from cache.sql.lexer import NUMBER, STRING
from cache.sql.plans import Literal, Literals
from cache.sql.string_constants import BITS, ESCAPED, GAP, PLAIN, MalformedEscapeError, dollar_tag, undoubled, unescaped

if TYPE_CHECKING:
    from cache.sql.lexer import Token

MAX_TEXT = 65_536
"""Bytes; a longer text has no template."""
MAX_LITERALS = 1_000
"""A text with more literals has no template either."""

# As in ``string_constants``: each pattern can match a given text in one way only.
_STRING = PLAIN.encode()
_CONTINUE = GAP.encode() + rb"(?=')"


def _block_comment(depth: int) -> bytes:
    """The pattern of a block comment with at most ``depth`` levels of comments inside it."""
    inner = rb"|" + _block_comment(depth - 1) if depth else b""
    return rb"/\*[^*/]*(?:(?:\*(?!/)|/(?!\*)" + inner + rb")[^*/]*)*\*/"


_COMMENT = rb"--[^\n\r]*(?![^\n\r])|" + _block_comment(3)

_LONG_LIST = (
    rb"(?:(?<=[^\w$\x80-\xff.\"][iI][nN])|(?<=[^\w$\x80-\xff.\"][iI][nN][\ ]))"
    rb"\(\s*(?:-?\d+(?:\s*,\s*-?\d+){%(n)d,}|%(s)s(?:\s*,\s*%(s)s){%(n)d,})\s*\)"
) % {b"n": LONG_LIST, b"s": rb"'[^'\\]*(?:''[^'\\]*)*'(?!')"}

# One match is a run of what stays as it is, then one token of the four kinds below or the end of the text. The last
# kind takes all that is left, so a match never fails, and the run is never tried again at another length.
_TOKENS = re.compile(
    rb"""
    ((?:
        [A-Za-z_\x80-\xff](?:[\w$\x80-\xff]+|(?!['&]))
      | [\s,)=*:;<>+~!@\#^&|`?%%\[\]]+
      | \.(?!\d)
      | \((?![\s\d'-])
      | (?!%(long_list)s)\(
      | -(?!-)
      | /(?!\*)
      | \$\d+(?![\w$\x80-\xff])
      | "[^"]*(?:""[^"]*)*"
      | %(bits)s(?!\s*(?:'|--))
      | [uU]&(?!['"])
      | [A-TV-Za-tv-z_\x80-\xff]&
    )*)
    (?:
        (%(string)s)(?!%(continue)s)
      | (\d+)(?![.\w$\x80-\xff])
      | (  (?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![.\w$\x80-\xff])
         | %(comment)s
         | %(string)s(?:%(continue)s%(string)s)+
         | [eE]%(escaped)s(?!%(continue)s)
         | (?P<tag>%(tag)s)[\s\S]*?(?P=tag)
         | %(long_list)s
        )
      | ([\s\S]+)
      | \Z
    )
    """
    % {
        b"long_list": _LONG_LIST,
        b"string": _STRING,
        b"escaped": ESCAPED.encode(),
        b"bits": BITS.encode(),
        b"tag": dollar_tag(r"\x80-\xff").encode(),
        b"continue": _CONTINUE,
        b"comment": _COMMENT,
    },
    re.VERBOSE,
)

_FIRST_WORD = rb"(?:\(|(?:SELECT|INSERT|UPDATE|DELETE|WITH|MERGE|TABLE|VALUES|EXECUTE|FETCH)(?![\w$\x80-\xff]))"
_FIRST = re.compile(rb"(?:\s|" + _COMMENT + rb")*" + _FIRST_WORD, re.IGNORECASE)
_OTHER_STATEMENT = re.compile(rb";\s*(?!\s|;|\Z|" + _FIRST_WORD + rb")", re.IGNORECASE)

_PART = re.compile(rb"(?:" + _CONTINUE + rb")?(" + _STRING + rb")")
_ELEMENT = re.compile(_STRING)

_MODIFIED = {
    name.encode() for row in TABLE if row.has_modifier for name in (row.name, *row.key_words) if " " not in name
} | {b"float", b"national", b"second", b"varying"}
"""Words that a modifier in parentheses may follow without a cast before them: types, and the last words of
``character varying``, ``interval second`` and their kind."""
# The name before "(" and whether it is a cast's. Names longer than NAMEDATALEN, 63 bytes, are cut by the server; beyond
# this reach a name is just no type's.
_LAST_NAME = re.compile(
    rb"""(?:(::|(?<![\w$\x80-\xff])AS\s)\s*)?((?:[\w$.\x80-\xff]|"[^"]*")+)\s*\(\Z""", re.IGNORECASE
)
_NAME_REACH = 80

_MARK = b"7070707"
_QUOTE = "\ue000"
_LIST_QUOTE = "\ue001"
_NUMBER = re.compile(r"7070707(\d{5})707(?:\.5)?")
_STRING_SLOT = re.compile(_QUOTE + r"(\d+)" + _QUOTE)
_LIST_SLOT = re.compile(_LIST_QUOTE + r"(\d+)" + _LIST_QUOTE)
_QUOTE_BYTES = _QUOTE.encode()
_LIST_QUOTE_BYTES = _LIST_QUOTE.encode()


class _DoubtError(Exception):
    """The text may mean something else to PostgreSQL."""


def split(text: bytes, conforming_strings: bool = True) -> tuple[bytes, Literals] | None:
    """The template of ``text`` and its literals, by slot; None when there is any doubt about either.

    ``text`` is in the session's client encoding, which must be one whose bytes below 0x80 mean ASCII (UTF-8 and all
    single-byte encodings; not SJIS, BIG5, GBK, UHC, GB18030, JOHAB). ``conforming_strings`` is the session's
    standard_conforming_strings when the text was sent.
    """
    if len(text) > MAX_TEXT or _FIRST.match(text) is None or 0 in text:
        return None
    if not conforming_strings and 0x5C in text:
        return None
    pieces: list[bytes] = []
    literals: list[Literal] = []
    modifier = commented = False
    for plain, string, integer, rare, _, doubt in _TOKENS.findall(text):
        pieces.append(plain)
        if integer:
            modifier = _modifies_type(b"".join(pieces) if commented else plain, modifier)
            if modifier:
                pieces.append(integer)
            else:
                pieces.append(b"\0i")
                literals.append(Literal(integer, "integer"))
            commented = False
        elif string:
            pieces.append(b"\0s")
            value = string[1:-1]
            literals.append(Literal(value.replace(b"''", b"'") if b"'" in value else value, "string"))
            modifier = commented = False
        elif rare:
            commented = rare.startswith((b"--", b"/*"))
            modifier = modifier and commented
            try:
                pieces.append(_rare(rare, literals))
            except (_DoubtError, MalformedEscapeError):
                return None
        elif doubt:
            return None
    template = b"".join(pieces)
    return None if len(literals) > MAX_LITERALS or _is_ambiguous(template) else (template, tuple(literals))


def _modifies_type(plain: bytes, after_modifier: bool) -> bool:
    """Whether the number that follows ``plain`` is a type's modifier, as in ``numeric(10, 2)``."""
    plain = plain.rstrip()
    if plain[-1:] != b"(":
        return after_modifier and plain.rstrip(b" -").endswith(b",") and b")" not in plain
    if plain[-9:-1].rstrip().lower().endswith((b" values", b" in")):
        return False
    match = _LAST_NAME.search(plain, max(0, len(plain) - _NAME_REACH))
    if match is None:
        return False
    return match[1] is not None or match[2].lower() in _MODIFIED


def _rare(token: bytes, literals: list[Literal]) -> bytes:
    """What stands in the template for a token that is neither a plain string nor a plain integer."""
    first = token[:1]
    if first in b"-/":
        return b" "
    if first == b"(":
        return _list(token, literals)
    if first == b"'":
        parts = (undoubled(part[1:-1], b"'") for part in _PART.findall(token))
        literals.append(Literal(b"".join(parts), "string"))
    elif first in b"eE":
        value, certain = unescaped(token[2:-1])
        if not certain:
            raise _DoubtError
        literals.append(Literal(value, "string"))
    elif first == b"$":
        tag = token.index(b"$", 1) + 1
        literals.append(Literal(token[tag:-tag], "string"))
    else:
        literals.append(Literal(token, "decimal"))
        return b"\0d"
    return b"\0s"


def _list(token: bytes, literals: list[Literal]) -> bytes:
    """A long ``(1, 2, …)`` or ``('a', 'b', …)`` as one array literal."""
    if b"'" not in token:
        literals.append(Literal(b"{" + token[1:-1].strip() + b"}", "integer[]"))
        return b"(\0j)"
    elements = (undoubled(element[1:-1], b"'").replace(b'"', rb"\"") for element in _ELEMENT.findall(token))
    literals.append(Literal(b'{"' + b'","'.join(elements) + b'"}', "string[]"))
    return b"(\0t)"


def _is_ambiguous(template: bytes) -> bool:
    """Whether the literals of ``template`` may decide what it means, or could be confused with what is no literal."""
    if b";" in template and _OTHER_STATEMENT.search(template) is not None:
        return True
    lower = template.lower()
    if b"set_config" in lower or b"pg_settings" in lower:
        return True
    return _MARK in template or _QUOTE_BYTES in template or _LIST_QUOTE_BYTES in template


def parseable(template: bytes) -> str:
    """``template`` as SQL, with a constant of the right class in each slot.

    Bytes that are not UTF-8 become lone surrogates (``surrogateescape``).
    """
    first, *rest = template.split(b"\0")
    pieces = [first]
    for slot, piece in enumerate(rest):
        pieces += (_constant(piece[:1], slot), piece[1:])
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _constant(letter: bytes, slot: int) -> bytes:
    match letter:
        case b"s":
            return f"'{_QUOTE}{slot}{_QUOTE}'".encode()
        case b"i":
            return b"%s%05d707" % (_MARK, slot)
        case b"d":
            return b"%s%05d707.5" % (_MARK, slot)
        case _:
            return f"'{_LIST_QUOTE}{slot}{_LIST_QUOTE}'".encode()


def tokens_of(template: bytes, conforming_strings: bool) -> list[Token]:
    """The tokens of ``template``, with a slot on each constant that stands for a literal.

    Raises:
        LexicalError: see ``lexer.tokenize``.
        UnicodeError: the template is not UTF-8. Literals may be in another encoding; they are not in the template.
    """
    tokens: list[Token] = []
    for token in lexer.tokenize(parseable(template).encode().decode(), conforming_strings):
        if token.kind in (STRING, NUMBER):
            slot, list_slot = slot_of(token.text), list_slot_of(token.text)
            if slot is not None:
                token = token._replace(slot=slot)
            elif list_slot is not None:
                token = token._replace(slot=list_slot, is_list=True)
        tokens.append(token)
    return tokens


def slot_of(constant: str) -> int | None:
    """The slot a constant of a parsed ``parseable`` text stands for (strings without their quotes); None for a constant
    that is in the template itself, that the parser has computed with, or that stands for a list."""
    match = _STRING_SLOT.fullmatch(constant) or _NUMBER.fullmatch(constant)
    return None if match is None else int(match[1])


def list_slot_of(constant: str) -> int | None:
    """The slot of the array that stands for a long IN list, where ``constant`` is the list's only element."""
    match = _LIST_SLOT.fullmatch(constant)
    return None if match is None else int(match[1])
