r"""How PostgreSQL writes string constants (manual: "String Constants"), for both readers of SQL text.

``lexer`` reads decoded text, ``templates`` the bytes a client sent; the patterns are the same but for how a character
outside ASCII is matched. None of them has possessive quantifiers or atomic groups, which do not match what they should
before Python 3.11.5: each can match a given text in one way only, so that giving up takes linear time.

======================  ===========================================================================================
``'it''s'``             PLAIN while standard_conforming_strings is on, ESCAPED while it is off
``E'it\'s'``            ``E`` before ESCAPED
``N'…'  U&'…'``         ``N`` before what a plain constant is at the time, ``U&`` before PLAIN (only while it is on)
``B'01'  X'1F'``        BITS: bit strings, which have no escapes
``$tag$it's$tag$``      dollar_tag, then everything up to the same tag
``'a'⏎'b'``             one constant: parts of it, all of them PLAIN or all ESCAPED, follow each other over a GAP
======================  ===========================================================================================
"""

from __future__ import annotations

import re
from typing import AnyStr

GAP = r"[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*"
"""Between the parts of one constant: white space with at least one newline, and ``--`` comments."""
PLAIN = r"'[^']*(?:''[^']*)*'(?!')"
ESCAPED = r"'[^'\\]*(?:(?:''|\\[\s\S])[^'\\]*)*'(?!')"
BITS = r"[bBxX]'[^'\\]*'"

_ESCAPE = re.compile(rb"''|\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([\s\S]))")
_CONTROL = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class MalformedEscapeError(ValueError):
    r"""``\x``, ``\u`` or ``\U`` without its digits."""


def dollar_tag(beyond_ascii: str) -> str:
    """The pattern of a dollar quote; ``beyond_ascii`` is the range of characters outside ASCII."""
    letter = f"A-Za-z_{beyond_ascii}"
    return rf"\$(?:[{letter}][{letter}0-9]*)?\$"


def undoubled(body: AnyStr, quote: AnyStr) -> AnyStr:
    """What stands between the quotes of a PLAIN constant, or of a quoted identifier, as its value."""
    return body.replace(quote + quote, quote)


def unescaped(body: bytes) -> tuple[bytes, bool]:
    r"""What stands between the quotes of an ESCAPED constant as its value, and whether that is certain.

    It is not where a byte above ASCII or a character by its code point is written, which depends on the server's
    encoding, and where ``\v`` is, which only newer servers know.

    Raises:
        MalformedEscapeError: the server would refuse the constant.
    """
    certain = True

    def value(match: re.Match[bytes]) -> bytes:
        nonlocal certain
        octal, two, four, eight, other = match.groups()
        if other is not None:
            if other in b"xuU":
                raise MalformedEscapeError(f"invalid escape \\{other.decode()}")
            certain = certain and other != b"v"
            return _CONTROL.get(other, other)
        digits = two or four or eight
        if octal is None and digits is None:
            return b"'"
        code = int(octal, 8) & 0xFF if digits is None else int(digits, 16)
        if not 0 < code < 0x80:
            certain = False
            return b"?"
        return bytes((code,))

    return _ESCAPE.sub(value, body), certain
