"""Makes SQL texts from ``grammar.txt``, with names, constants and gaps of every spelling; and changes texts a little.

All is drawn from one ``random.Random``, so that a seed says what is made. Not every text is one that PostgreSQL takes.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.cache.sql.against_parser.lexemes import Lexeme, key_words, spelled

_DEEPEST = 6
_LONGEST = 6_000
_GAP = "\0"
_TABLES = ["users", "orders", "other", "Users", '"Users"', '"or ders"', "ünï", 'U&"us\\0065rs"', '"u""v"', '"select"']
_COLUMNS = ["id", "name", "tenant", "n", '"id"', '"Name"', "ID", "straße", "U&\"n!0061me\" UESCAPE '!'", '"from"']
_NAMES = ["u", "o", "t", "public", "users", "v", "x", '"X"', "w", "excluded", "new", "old", "pg_temp", "pg_catalog"]
_FUNCTIONS = ["f", "count", "lower", "now", "set_config", "nextval", '"F"', "left", "row_number", "date_trunc", "if"]
_NUMBERS = ["1", "2", "5", "10", "42", "0", "007", "1.5", ".5", "5.", "1e3", "1.5e-3", "0x1F", "0o17", "0b11", "1_000",
            "9223372036854775808", "3000000000"]  # fmt: skip
_STRINGS = [
    "'a'", "''", "'it''s'", "'a;b'", "'--'", "'/*'", "'a b'", "'é'", "'a\\b'", "E'a\\'b'", "E'\\\\'",
    "E'\\n\\x41\\101'", "e'\\u00e9'", "$$a$$", "$$it's;$$", "$t$ $$ ' $t$", "$é$x$é$", "'a'\n'b'", "E'a'\n'\\''",
    "U&'\\0061'", "U&'!0061' UESCAPE '!'", "u&'a'", "'1'", "'10'", "'$1'", "'\n'", "E'\\v'", "'{1,2}'",
]  # fmt: skip
_GAPS = [" "] * 40 + ["\n", "\t", "  ", "\r\n", " /* c */ ", "/**/", "/* /* ' */ ; */", " -- ' ;\n", "--\n", "\f"]
_TIGHT = frozenset("()[],.;=<>+-*/%^|&~!@#?:")


def _rules() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    name = ""
    for line in (Path(__file__).parent / "grammar.txt").read_text("utf-8").splitlines():
        if line.startswith("  "):
            found[name].append(line.split())
        elif line and not line.startswith("#"):
            name = line.removesuffix(":")
            found[name] = []
    return found


class Generator:
    """Texts from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._rules = _rules()
        self._key_words = key_words()
        self._words: dict[str, Callable[[], str]] = {
            "TABLE": lambda: self._name(_TABLES, 0.03),
            "COLUMN": lambda: self._name(_COLUMNS, 0.03),
            "NAME": lambda: self._name(_NAMES, 0.03),
            "FUNCTION": lambda: self._name(_FUNCTIONS, 0.03),
            "LABEL": lambda: self._name(_NAMES, 0.7),
            "BARE_LABEL": lambda: self._name(_NAMES, 0.5),
            "NUMBER": lambda: self._random.choice(_NUMBERS[: 6 if self._random.random() < 0.8 else None]),
            "STRING": lambda: self._random.choice(_STRINGS[: 1 if self._random.random() < 0.4 else None]),
            "PARAMETER": lambda: f"${self._random.randint(1, 4)}",
        }

    def texts(self, count: int, rule: str = "text") -> Iterator[str]:
        for _ in range(count):
            parts: list[str] = []
            self._write(rule, 0, parts)
            yield self._joined(parts)

    def _name(self, usual: Sequence[str], unusual: float) -> str:
        if self._random.random() >= unusual:
            return self._random.choice(usual[: 4 if self._random.random() < 0.7 else None])
        word = self._random.choice(self._key_words)
        return word if self._random.random() < 0.8 else f'"{word}"'

    def _write(self, rule: str, depth: int, parts: list[str]) -> None:
        ways = self._rules[rule]
        way = ways[0] if depth > _DEEPEST or len(parts) > 300 else self._random.choice(ways)
        for part in way:
            if not (part.startswith("<") and part.endswith(">") and len(part) > 2 and part[1].isalpha()):
                parts.append(self._cased(part))
                continue
            name = part[1:-1]
            many, name = name[-1], name.rstrip("?,+")
            if many == "?" and self._random.random() < 0.5:
                continue
            count = self._random.choice((1, 1, 2, 3)) if many in ",+" else 1
            for number in range(count):
                if number and many == ",":
                    parts.append(",")
                if name in self._words:
                    parts.append(self._words[name]())
                else:
                    self._write(name, depth + 1, parts)

    def _cased(self, word: str) -> str:
        return word.lower() if self._random.random() < 0.3 else word

    def _joined(self, parts: Sequence[str]) -> str:
        out: list[str] = []
        plain = self._random.random() < 0.6
        for part in parts:
            tight = out and (part[:1] in "(),.;[]" or out[-1][-1:] in "(,.[")
            if out and not (tight and self._random.random() < 0.7):
                out.append(" " if plain else self._random.choice(_GAPS))
            out.append(part)
        return "".join(out)


class Mutator:
    """Texts that are like those of a collection, with a few lexemes left out, doubled, moved, or taken from others."""

    def __init__(self, seed: int, collection: Sequence[tuple[str, Sequence[Lexeme]]]) -> None:
        self._random = random.Random(seed)
        self._collection = [spelled(text, found) for text, found in collection if found]
        self._words = [*key_words(), *_NAMES, *_TABLES, *_COLUMNS, *_STRINGS, *_NUMBERS, "$1", "(", ")", ",", ".", ";",
                       "=", "::", "[", "]", "+", "-", "*", "<>", "||"]  # fmt: skip

    def texts(self, count: int) -> Iterator[str]:
        for _ in range(count):
            found = list(self._random.choice(self._collection))
            for _ in range(self._random.choice((1, 1, 1, 2, 3))):
                found = self._changed(found)
            text = " ".join(found)
            if len(text) < _LONGEST:
                yield text

    def _changed(self, found: list[str]) -> list[str]:
        start = self._random.randrange(len(found) + 1)
        end = min(len(found), start + self._random.choice((1, 1, 1, 2, 3, 6)))
        way = self._random.randrange(6)
        if way == 0:
            return [*found[:start], self._random.choice(self._words), *found[start:]]
        if way == 1:
            return [*found[:start], self._random.choice(self._words), *found[start + 1 :]]
        if way == 2:
            return [*found[:start], *found[end:]] or found
        if way == 3:
            return [*found[:end], *found[start:]]
        other = self._random.choice(self._collection)
        first = self._random.randrange(len(other))
        piece = other[first : first + self._random.choice((1, 2, 3, 5, 8, 13))]
        return [*found[:start], *piece, *found[end if way == 4 else start :]]


def key_word_texts() -> Iterator[str]:
    """Every key word in every place of ``keywords.txt``."""
    lines = (Path(__file__).parent / "keywords.txt").read_text("utf-8").splitlines()
    for line in lines:
        if not line.startswith("#"):
            yield from (line.replace("{}", word) for word in key_words())
