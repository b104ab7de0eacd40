"""The line of a TOML file on which a key is, for error messages.

``tomllib`` gives values without positions. This scanner finds the file's headers and keys and skips its values, strings
included, so that a line inside a multi-line string is not taken for a key. ``tomllib`` has accepted the file before, so
nothing is validated here. A key that the scanner does not find has no line number, never a wrong one.
"""

from __future__ import annotations

import re

Path = tuple[str | int, ...]

_KEY_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*""")
_SKIPPED = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*",
    re.DOTALL,
)


def _dotted(text: str, position: int) -> tuple[list[str], int]:
    """The dotted key at ``position`` and where it ends; an empty list when there is none."""
    parts: list[str] = []
    while match := _KEY_PART.match(text, position):
        parts.append(next(group for group in match.groups() if group is not None))
        position = match.end()
        if text[position : position + 1] != ".":
            break
        position += 1
    return parts, position


def _end_of_value(text: str, position: int) -> int:
    """The newline that ends the statement whose value starts at ``position``."""
    depth = 0
    while position < len(text):
        if skipped := _SKIPPED.match(text, position):
            position = skipped.end()
            continue
        character = text[position]
        if character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "\n" and depth <= 0:
            break
        position += 1
    return position


class Lines:
    """Line numbers of one file's tables and keys."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}
        self._scan(text.replace("\r\n", "\n"))

    def line_of(self, path: Path) -> int | None:
        """The line of ``path``, or of the innermost key or table around it that has one."""
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return None

    def _scan(self, text: str) -> None:
        position = 0
        table: Path = ()
        while position < len(text):
            start = position
            if text[position].isspace():
                position += 1
                continue
            line = text.count("\n", 0, start) + 1
            if text[position] == "[":
                is_array = text.startswith("[[", position)
                parts, _ = _dotted(text, position + (2 if is_array else 1))
                table = self._header(parts, is_array=is_array)
                self._lines.setdefault(table, line)
            elif text[position] != "#":
                parts, position = _dotted(text, position)
                self._lines.setdefault((*table, *parts), line)
            position = max(_end_of_value(text, position), start + 1)

    def _header(self, parts: list[str], *, is_array: bool) -> Path:
        """The path a header opens. The name of an array of tables means its last element so far."""
        path: Path = ()
        for part in parts[:-1]:
            path = (*path, part)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        path = (*path, *parts[-1:])
        if is_array:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            path = (*path, self._arrays[path])
        return path
