"""Redis key templates: how a row's key columns become one Redis key, and which Redis keys a rule may call its own.

A template is fixed text with ``{column}`` placeholders; ``{database}``, ``{schema}`` and ``{table}`` stand for the
rule's own names (unless a key column bears the name). No two rows share a key: with one key column its text is used as
it is; with several, ``%`` and one character of each separator are percent-encoded within the parts, so the first of
those characters after a part always belongs to the separator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from cache.builtin_types import BY_OID, TextForm

RESERVED = b"rowtap:"
"""Prefix of Rowtap's own keys; no template may reach below it."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HEX = frozenset("%0123456789ABCDEF")
"""What percent-encoding itself writes: a separator made of nothing else could not be told from an encoded part."""
_ANY = frozenset(range(256))
_GLOB = re.compile(rb"[*?\[\]\\]")


Render = Callable[[Sequence[bytes]], bytes]
_Segments = tuple[bytes | int, ...]
"""Fixed bytes, and positions in ``key_columns``."""


class KeyTemplate:
    """One rule's key template. Immutable; made by ``parse`` or ``default``."""

    __slots__ = ("_escaped", "_forms", "_owned", "_segments", "key_columns", "pattern", "render", "text")

    text: str
    key_columns: tuple[str, ...]
    render: Render
    """The Redis key of the row whose key columns, in the order of ``key_columns``, have these canonical texts."""
    pattern: bytes
    """Glob for SCAN MATCH that every rendered key matches; others may match too, see ``owns``."""

    def __init__(self, text: str, key_columns: tuple[str, ...], segments: _Segments, types: Mapping[str, int]) -> None:
        self.text = text
        self.key_columns = key_columns
        self._segments = segments
        several = len(key_columns) > 1
        self._escaped = _escaped_characters(text, key_columns, segments) if several else ()
        self._forms = tuple(_form(types.get(name, 0), self._escaped) for name in key_columns)
        self._refuse_reserved()
        self.render = _several_columns(segments, self._escaped) if several else _one_column(segments)
        self.pattern = b"".join(b"*" if isinstance(s, int) else _GLOB.sub(rb"\\\g<0>", s) for s in segments)
        self._owned = _ownership(segments, self._forms)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        database: str,
        schema: str,
        table: str,
        key_columns: Sequence[str],
        types: Mapping[str, int] | None = None,
    ) -> KeyTemplate:
        """Read a ``redis_key``. ``types`` gives type OIDs of key columns where known; they sharpen ``owns``.

        Raises ValueError, with what is wrong and what would be right, for a template that does not fit the rule.
        """
        columns = tuple(key_columns)
        names: dict[str, str | int] = {"database": database, "schema": schema, "table": table}
        names.update({name: position for position, name in enumerate(columns)})
        segments = _merged(_segments(text, names, columns))
        missing = [name for position, name in enumerate(columns) if position not in segments]
        if missing:
            raise ValueError(
                f"redis_key {text!r} leaves out the key column {missing[0]!r}, so several rows would share one key:"
                f" add {{{missing[0]}}}"
            )
        return cls(text, columns, segments, types or {})

    @classmethod
    def default(
        cls,
        *,
        database: str,
        schema: str,
        table: str,
        key_columns: Sequence[str],
        types: Mapping[str, int] | None = None,
    ) -> KeyTemplate:
        """``{table}:`` and the key columns joined by ``:``; right for any column name, also one with braces in it.

        Raises ValueError for a table called ``rowtap``, whose keys would be Rowtap's own.
        """
        columns = tuple(key_columns)
        segments: list[bytes | int] = [table.encode() + b":"]
        for position in range(len(columns)):
            segments += [b":", position] if position else [position]
        text = "{table}:" + ":".join(f"{{{name}}}" for name in columns)
        return cls(text, columns, tuple(segments), types or {})

    def with_types(self, types: Mapping[str, int]) -> KeyTemplate:
        """The same template, told the type OIDs of key columns (base types, not domains)."""
        return KeyTemplate(self.text, self.key_columns, self._segments, types)

    def owns(self, key: bytes) -> bool:
        """Whether ``key`` has the form of a rendered key. Every rendered key has; with a text key column, a foreign
        key of the same form cannot be told apart."""
        return self._owned.fullmatch(key) is not None

    def parts(self, key: bytes) -> tuple[bytes, ...] | None:
        """The key columns' texts of which ``render`` makes ``key``; None when it makes it of none."""
        match = self._owned.fullmatch(key)
        if match is None:
            return None
        texts = [match[f"k{position}"] for position in range(len(self.key_columns))]
        if len(texts) > 1:
            characters = {_encoded(character): character.encode() for character in ("%", *self._escaped)}
            encoded = re.compile(b"|".join(map(re.escape, characters)))
            texts = [encoded.sub(lambda found: characters[found[0]], text) for text in texts]
        return tuple(texts)

    def overlaps(self, other: KeyTemplate) -> bool:
        """Whether some key may have both templates' form. May say True needlessly, never False wrongly."""
        return _intersect(self._machine(), other._machine())

    def __repr__(self) -> str:
        return f"KeyTemplate({self.text!r}, key_columns={self.key_columns!r})"

    def _refuse_reserved(self) -> None:
        if self._segments and _intersect(self._machine(), [*RESERVED, _ANY]):
            raise ValueError(
                f"redis_key {self.text!r} can make a key under 'rowtap:', which holds Rowtap's own keys:"
                " begin it with other fixed text, such as {table}:"
            )

    def _machine(self) -> list[int | frozenset[int]]:
        """One token for each fixed byte, and one set (any run of its bytes) for each placeholder."""
        tokens: list[int | frozenset[int]] = []
        for segment in self._segments:
            if isinstance(segment, int):
                tokens.append(self._forms[segment].alphabet)
            else:
                tokens.extend(segment)
        return tokens


def _segments(text: str, names: Mapping[str, str | int], columns: tuple[str, ...]) -> list[bytes | int]:
    segments: list[bytes | int] = []
    position = 0
    for token in _TOKEN.finditer(text):
        segments.append(text[position : token.start()].encode())
        position = token.end()
        if token[0] in ("{{", "}}"):
            segments.append(token[0][:1].encode())
            continue
        if token[1] is None:
            raise ValueError(
                f"redis_key {text!r} has a lone {token[0]!r}: write {token[0] * 2!r} for the character itself"
            )
        if token[1] not in names:
            known = ", ".join(f"{{{name}}}" for name in (*columns, "table", "schema", "database"))
            raise ValueError(f"redis_key {text!r} has the unknown placeholder {token[0]}: use {known}")
        meaning = names[token[1]]
        segments.append(meaning if isinstance(meaning, int) else meaning.encode())
    segments.append(text[position:].encode())
    return segments


def _merged(segments: list[bytes | int]) -> _Segments:
    """Neighbouring fixed bytes joined, empty ones left out."""
    merged: list[bytes | int] = []
    for segment in segments:
        if isinstance(segment, int):
            merged.append(segment)
        elif segment and merged and isinstance(last := merged[-1], bytes):
            merged[-1] = last + segment
        elif segment:
            merged.append(segment)
    return tuple(merged)


def _escaped_characters(text: str, columns: tuple[str, ...], segments: _Segments) -> tuple[str, ...]:
    """One character of each separator, to be encoded within parts.

    Punctuation is preferred, so that in ``{a}:user:{b}`` only ``:`` is encoded and not every letter of ``user``.
    """
    chosen: set[str] = set()
    for position, segment in enumerate(segments[:-1]):
        if not isinstance(segment, int):
            continue
        following = segments[position + 1]
        if isinstance(following, int):
            raise ValueError(
                f"redis_key {text!r} has nothing between {{{columns[segment]}}} and {{{columns[following]}}}, so two"
                f" rows could share a key: separate them, as in {{{columns[segment]}}}:{{{columns[following]}}}"
            )
        if position + 2 == len(segments):
            continue
        usable = [character for character in following.decode() if character not in _HEX]
        if not usable:
            raise ValueError(
                f"redis_key {text!r} separates {{{columns[segment]}}} by {following.decode()!r}, which percent-encoding"
                " itself can write: use a character such as ':'"
            )
        chosen.add(next((character for character in usable if not character.isalnum()), usable[0]))
    return tuple(sorted(chosen))


def _encoded(character: str) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in character.encode())


def _form(type_oid: int, escaped: tuple[str, ...]) -> TextForm:
    """The form of an encoded part. A typed part whose alphabet meets an escaped character counts as any text."""
    known = BY_OID[type_oid].form if type_oid in BY_OID else None
    if known is not None and not any(ord(character) in known.alphabet for character in escaped):
        return known
    if not escaped:
        return TextForm(rb"(?s:.*)", _ANY)
    characters = ("%", *escaped)
    encoded = b"|".join(re.escape(_encoded(character)) for character in characters)
    single = b"".join(re.escape(character.encode()) for character in characters if ord(character) < 128)
    multiple = b"".join(rb"(?!%b)" % character.encode() for character in characters if ord(character) >= 128)
    pattern = rb"(?s:(?:%b|%b[^%b])*)" % (encoded, multiple, single)
    return TextForm(pattern, _ANY - {ord(character) for character in escaped if ord(character) < 128})


def _ownership(segments: _Segments, forms: tuple[TextForm, ...]) -> re.Pattern[bytes]:
    pattern: list[bytes] = []
    seen: set[int] = set()
    for segment in segments:
        if isinstance(segment, bytes):
            pattern.append(re.escape(segment))
        elif segment in seen:
            pattern.append(b"(?P=k%d)" % segment)
        else:
            seen.add(segment)
            pattern.append(b"(?P<k%d>%b)" % (segment, forms[segment].pattern))
    return re.compile(b"".join(pattern))


def _one_column(segments: _Segments) -> Render:
    """The column's text as it is: fixed text around it (even around several copies of it) keeps keys apart."""
    if len(segments) == 2 and isinstance(prefix := segments[0], bytes):

        def render_behind(parts: Sequence[bytes]) -> bytes:
            return prefix + parts[0]

        return render_behind

    def render_joined(parts: Sequence[bytes]) -> bytes:
        part = parts[0]
        return b"".join([segment if isinstance(segment, bytes) else part for segment in segments])

    return render_joined


def _several_columns(segments: _Segments, escaped: tuple[str, ...]) -> Render:
    replacements = {character.encode(): _encoded(character) for character in ("%", *escaped)}
    special = re.compile(b"|".join(re.escape(character) for character in replacements))
    is_special = special.search
    replace = special.sub

    def encoded(match: re.Match[bytes]) -> bytes:
        return replacements[match[0]]

    shape = b"".join(b"%b" if isinstance(segment, int) else segment.replace(b"%", b"%%") for segment in segments)
    order = [segment for segment in segments if isinstance(segment, int)]
    in_order = order == sorted(set(order))

    def render(parts: Sequence[bytes]) -> bytes:
        safe = [replace(encoded, part) if is_special(part) else part for part in parts]
        return shape % (tuple(safe) if in_order else tuple([safe[position] for position in order]))

    return render


def _intersect(left: list[int | frozenset[int]], right: list[int | frozenset[int]]) -> bool:
    """Whether two token sequences have a string in common: a search of the product automaton."""
    pending = [(0, 0)]
    seen = {(0, 0)}
    while pending:
        i, j = pending.pop()
        if i == len(left) and j == len(right):
            return True
        a = left[i] if i < len(left) else None
        b = right[j] if j < len(right) else None
        steps: list[tuple[int, int]] = []
        if isinstance(a, frozenset):
            steps.append((i + 1, j))
            if isinstance(b, int) and b in a:
                steps.append((i, j + 1))
        if isinstance(b, frozenset):
            steps.append((i, j + 1))
            if isinstance(a, int) and a in b:
                steps.append((i + 1, j))
        if isinstance(a, int) and a == b:
            steps.append((i + 1, j + 1))
        for step in steps:
            if step not in seen:
                seen.add(step)
                pending.append(step)
    return False
