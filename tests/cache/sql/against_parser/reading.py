"""What ``cache.sql`` reads in a text, with each literal found again at its place in the text.

A text is read in two ways: as it is, and through its template. Both must mean the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

from cache.sql import canonical, commands, lexer, templates
from cache.sql.lexer import MARK, Token
from cache.sql.statements import Statement
from tests.cache.sql.against_parser.lexemes import Lexeme


class LexemesError(Exception):
    """A way of reading makes other lexemes of a text than PostgreSQL."""


class Reading(NamedTuple):
    """A text as one of the two ways reads it."""

    way: str
    statements: list[tuple[int, Statement]]
    """How many lexemes each statement has, and what it says."""
    places: dict[int, int]
    """For each slot, which of the text's lexemes it is (for a list, the first of it)."""
    spellings: dict[int, tuple[bytes, str]]
    """For each slot, its literal's value and kind."""


def tokens(text: str, conforming: bool = True) -> list[Token] | None:
    """The text's lexemes; None if they are not certain."""
    try:
        return lexer.tokenize(text, conforming)
    except lexer.LexicalError:
        return None


def readings(text: str, lexemes: Sequence[Lexeme], conforming: bool = True) -> list[Reading]:
    """The text in all ways that can read it; none if it is opaque as a whole.

    ``lexemes`` are what PostgreSQL's scanner finds in it.
    """
    found = []
    plain = tokens(text, conforming)
    if plain is not None:
        stream, literals = canonical.number_literals(plain)
        found.append(_reading("exact", stream, lexemes, [(one.value, one.kind) for one in literals]))
    divided = templates.split(text.encode(), conforming)
    if divided is not None:
        template, parts = divided
        stream = templates.tokens_of(template, conforming)
        found.append(_reading("template", stream, lexemes, [(one.value, one.kind) for one in parts]))
    return found


def _reading(way: str, stream: list[Token], plain: Sequence[Lexeme], literals: list[tuple[bytes, str]]) -> Reading:
    places = _places(stream, plain)
    reader = commands.StatementReader()
    lengths, read, start, at = [], [], 0, 0
    for tokens in lexer.split_statements(stream):
        while stream[at] is not tokens[0]:
            at += 1
        start = places[at]
        at += len(tokens)
        end = places[at] if at < len(stream) else len(plain)
        lengths.append(end - start)
        read.append(reader.read(tokens))
    slots = {token.slot: places[index] for index, token in enumerate(stream) if token.slot >= 0}
    return Reading(way, list(zip(lengths, read, strict=True)), slots, dict(enumerate(literals)))


def _places(stream: list[Token], plain: Sequence[Lexeme]) -> list[int]:
    """For each token of ``stream``, in which a long list is one token, which lexeme of the text it is."""
    places, place = [], 0
    for token in stream:
        places.append(place)
        place += 1
        if token.is_list:
            while place < len(plain) and not (plain[place].kind == MARK and plain[place].text == ")"):
                place += 1
    if place != len(plain):
        raise LexemesError(f"{len(plain)} lexemes have become {place}")
    return places
