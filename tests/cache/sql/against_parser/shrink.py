"""Makes a text that is read wrong as short as it can be while it stays that."""

from collections.abc import Callable

from tests.cache.sql.against_parser.lexemes import lexemes, spelled

_TRIES = 2_000


def shrunk(text: str, is_wrong: Callable[[str], bool]) -> str:
    """The shortest text found by leaving out lexemes, or ``text`` itself."""
    found = spelled(text, lexemes(text))
    if not is_wrong(" ".join(found)):
        return text
    tries, length = 0, max(1, len(found) // 2)
    while length and tries < _TRIES:
        start, shorter = 0, False
        while start < len(found):
            fewer = [*found[:start], *found[start + length :]]
            tries += 1
            if fewer and is_wrong(" ".join(fewer)):
                found, shorter = fewer, True
            else:
                start += length
        length = length if shorter else length // 2
    return " ".join(found)
