"""Durations, addresses and table names as the configuration spells them. A text that is refused raises ValueError, and
the message says what would be right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"us": 0.000_001, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII)
LONGEST_DURATION = 36_500 * 86_400.0
"""A hundred years: more than any use needs, and less than the largest value of Redis's and the event loop's timers."""

NAME_BYTES = 63
"""NAMEDATALEN - 1: PostgreSQL truncates longer identifiers."""


def seconds(text: str) -> float:
    """A duration such as "2ms", "1.5s", "10min" or "1h", in seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f'must be a duration with a unit (us, ms, s, min, h, d) such as "30s", not {text!r}')
    value = float(match[1]) * _UNITS[match[2]]
    if value > LONGEST_DURATION:
        raise ValueError(f"{text!r} is longer than a hundred years")
    return value


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on: ``host`` and ``port``, or the Unix socket ``path`` (then ``host`` is empty)."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host or '*'}:{self.port}"

    @property
    def client_host(self) -> str:
        """The host a client on this machine connects to; the directory, for a Unix socket."""
        if self.path is not None:
            return str(Path(self.path).parent)
        return {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - no bind


def socket_path(directory: str, port: int) -> str:
    """The Unix socket that a PostgreSQL client connects to in ``directory``. A leading "@" is Linux's abstract
    namespace."""
    name = f"{directory.rstrip('/')}/.s.PGSQL.{port}"
    return "\0" + name[1:] if name.startswith("@") else name


def address(text: str) -> Address:
    """An address written as ``127.0.0.1:6432``, ``[::1]:6432``, ``localhost:6432``, ``*:6432`` (every address of the
    machine), or ``/directory:6432`` for the Unix socket ``.s.PGSQL.6432`` in that directory."""
    host, colon, digits = text.strip().rpartition(":")
    if not colon or not digits.isascii() or not digits.isdigit():
        raise ValueError(f'must be "address:port", such as "127.0.0.1:6432", not {text!r}')
    port = int(digits)
    if port > 65_535:
        raise ValueError(f"port {port} is beyond 65535")
    if host.startswith("/"):
        path = socket_path(host, port)
        # sun_path holds 108 bytes on Linux and 104 on macOS, terminator included.
        if len(path.encode()) > 103:
            raise ValueError(f"the Unix socket path {path} is longer than 103 bytes")
        return Address("", port, path)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'an IPv6 address needs brackets: "[{host}]:{port}"')
    if any(character.isspace() or character in "[]/" for character in host):
        raise ValueError(f'must be "address:port", such as "127.0.0.1:6432", not {text!r}')
    return Address("" if host == "*" else host, port)


def identifier(text: str) -> str:
    """One identifier exactly as PostgreSQL stores it."""
    if not text:
        raise ValueError("must not be empty")
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    if len(text.encode()) > NAME_BYTES:
        raise ValueError(f"{text!r} is longer than the {NAME_BYTES} bytes PostgreSQL keeps of a name")
    return text


def _quoted(text: str) -> tuple[str, str]:
    """``text`` starts with a double quote: the name inside, and what follows the closing quote."""
    match = re.match(r'"((?:[^"]|"")*)"', text)
    if match is None:
        raise ValueError(f"the double quote in {text!r} is not closed")
    return match[1].replace('""', '"'), text[match.end() :]


def table_name(text: str) -> tuple[str, str]:
    """A name such as ``users`` or ``public.users`` as (schema, table). A part with a dot in it is in double quotes.
    Case is kept with and without them, because names are spelled as PostgreSQL stores them."""
    parts: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            part, rest = _quoted(rest)
        else:
            part = rest.partition(".")[0]
            rest = rest[len(part) :]
        parts.append(identifier(part) if part else "")
        if not rest:
            break
        if not rest.startswith("."):
            raise ValueError(f'must be "table" or "schema.table", not {text!r}')
        rest = rest[1:]
    if not all(parts):
        raise ValueError(f'must be "table" or "schema.table", not {text!r}')
    if len(parts) == 1:
        return "public", parts[0]
    if len(parts) > 2:
        raise ValueError(
            f'{text!r} has {len(parts)} parts: use "schema.table", and "database = …" for the database; '
            "put a part with a dot in it in double quotes"
        )
    return parts[0], parts[1]
