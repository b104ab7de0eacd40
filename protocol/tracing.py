"""One line about a message, for the debug log. Values are never shown.

What came from or goes to a user (SQL text, parameters, rows, passwords, keys, messages of errors) is a length or a
count. Shown are numbers, the names of prepared statements and portals, names of run-time parameters and SASL
mechanisms, severity and SQLSTATE, command tags. A field that is not listed here is elided: a new message cannot leak
by being forgotten. Bytes that are no message get a line as well; nothing here raises.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final, cast

from protocol import backend, codes, frontend, startup
from protocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import DataclassInstance

    from protocol.message import Message

_SHOWN: Final = frozenset(
    (
        ("AuthenticationSASL", "mechanisms"),
        ("Bind", "portal"),
        ("Bind", "statement"),
        ("Close", "name"),
        ("CommandComplete", "tag"),
        ("Describe", "name"),
        ("Execute", "portal"),
        ("NegotiateProtocolVersion", "unrecognized"),
        ("Parse", "name"),
        ("ParameterStatus", "name"),
        ("SASLInitialResponse", "mechanism"),
    )
)
"""The fields that hold bytes and are not elided, by message and name."""

_LETTERS: Final = frozenset((("Close", "kind"), ("Describe", "kind"), ("ReadyForQuery", "status")))
"""The integers that are characters."""

_VERSIONS: Final = frozenset((("NegotiateProtocolVersion", "version"), ("StartupMessage", "version")))

_REPORT_SHOWN: Final = (codes.SEVERITY, codes.SEVERITY_UNLOCALIZED, codes.SQLSTATE)

_LONGEST_NAME: Final = 63
"""As long as an identifier can be; tags are shorter."""

_MOST_ELEMENTS: Final = 8


def render(message: Message | startup.Packet) -> str:
    """As ``Bind portal='' statement='s1' parameter_formats=[0] parameters=2 [5 bytes, NULL] result_formats=[]``."""
    name = type(message).__name__
    if isinstance(message, backend.ErrorResponse | backend.NoticeResponse):
        return " ".join([name, *_report(message)])
    # Every message is a dataclass, which their common base cannot say.
    names = [field.name for field in fields(cast("DataclassInstance", message))]
    return " ".join([name, *(f"{field}={_field(name, field, getattr(message, field))}" for field in names)])


def render_frontend(kind: int, body: bytes, response: type[Message] = frontend.SASLResponse) -> str:
    """The line for a frontend message as ``FrameScanner`` finds it; ``response`` as in ``frontend.decode``."""
    try:
        return render(frontend.decode(kind, body, response))
    except ProtocolError as problem:
        return _malformed(name_frontend(kind, response), body, problem)


def render_backend(kind: int, body: bytes) -> str:
    """The line for a backend message as ``FrameScanner`` finds it."""
    try:
        return render(backend.decode(kind, body))
    except ProtocolError as problem:
        return _malformed(name_backend(kind), body, problem)


def render_startup(packet: bytes) -> str:
    """The line for an untyped packet, its length included."""
    try:
        return render(startup.decode(packet))
    except ProtocolError as problem:
        return f"malformed startup packet of {len(packet)} bytes: {problem}"


def name_frontend(kind: int, response: type[Message] = frontend.SASLResponse) -> str:
    """What a frontend message is called by its type byte alone; ``response`` as in ``frontend.decode``."""
    return _name(response if kind == frontend.PASSWORD else frontend.MESSAGES.get(kind), kind)


def name_backend(kind: int) -> str:
    """What a backend message is called by its type byte alone, without its body."""
    return "Authentication" if kind == backend.AUTHENTICATION else _name(backend.MESSAGES.get(kind), kind)


def _name(message: type[Message] | None, kind: int) -> str:
    return message.__name__ if message else f"message of type 0x{kind:02x}"


def _malformed(name: str, body: bytes, problem: ProtocolError) -> str:
    return f"malformed {name} of {len(body)} bytes: {problem}"


def _report(message: backend.ErrorResponse | backend.NoticeResponse) -> list[str]:
    return [
        f"{_letter(code)}={_text(text) if code in _REPORT_SHOWN else _elided(text)}" for code, text in message.fields
    ]


def _field(message: str, field: str, value: object) -> str:
    known = (message, field)
    if isinstance(value, int):
        if known in _LETTERS:
            return _letter(value)
        return f"{value >> 16}.{value & 0xFFFF}" if known in _VERSIONS else str(value)
    if isinstance(value, list | tuple):
        return _sequence(value, shown=known in _SHOWN)
    return _element(value, shown=known in _SHOWN)


def _sequence(elements: Sequence[object], *, shown: bool) -> str:
    """How many, and the first few of them."""
    some = [_element(element, shown=shown) for element in elements[:_MOST_ELEMENTS]]
    if len(elements) > _MOST_ELEMENTS:
        some.append("…")
    return f"{len(elements)} [{', '.join(some)}]"


def _element(value: object, *, shown: bool = False) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return _text(value) if shown else _elided(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        # A startup parameter: which ones a client sets is worth a line, to what is not ours to tell.
        name, setting = value
        return f"{_text(name)}: {_elided(setting)}"
    # A column's name may be an expression's text; where the column comes from is what matters.
    assert isinstance(value, backend.FieldDescription)
    return f"{value.table_oid}.{value.column_number} type {value.type_oid} format {value.format}"


def _elided(value: bytes) -> str:
    return "1 byte" if len(value) == 1 else f"{len(value)} bytes"


def _text(name: bytes) -> str:
    """Quoted, in ASCII and on one line, whatever it holds."""
    return repr(name[:_LONGEST_NAME])[1:] + ("…" if len(name) > _LONGEST_NAME else "")


def _letter(code: int) -> str:
    return chr(code) if 0x20 < code < 0x7F else f"0x{code:02x}"
