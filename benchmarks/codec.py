"""The cost of the codec: the scanner per message, and each decode, compared with a loop that only unpacks headers.

    python benchmarks/codec.py

Prints ratios, which may be compared between machines and runs, because both numbers depend on the machine's speed; the
nanoseconds may not be compared. The best of several rounds counts; the rounds of all cases alternate, so that other
work on the machine slows all of them.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from struct import Struct
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from cache import builtin_types
from protocol import FrameScanner, backend, codes, frontend

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol import Handler

ROUNDS = 15
ROUND_NS = 4_000_000
MESSAGES = 200

ROW = bytes(backend.DataRow([b"42", b"Ada Lovelace", None]))
ROWS = ROW * MESSAGES
WIDE_ROW = backend.DataRow([b"42", None] * 50).body()
PIECES = [ROWS[pos : pos + 1000] for pos in range(0, len(ROWS), 1000)]


class Case(NamedTuple):
    """Something to measure, and how many messages one run of it handles."""

    name: str
    run: Callable[[], object]
    messages: int = 1


def walk() -> int:
    """The least a reader in Python can do: unpack each header and skip the body."""
    unpack = Struct("!BI").unpack_from
    chunk = ROWS
    size = len(chunk)
    pos = 0
    while pos < size:
        _, length = unpack(chunk, pos)
        pos += length + 1
    return pos


def scan(handler: Handler | None, chunks: list[bytes]) -> Callable[[], None]:
    """Feed the chunks to one scanner whose DataRow handler is ``handler``."""
    handlers: list[Handler | None] = [None] * 256
    handlers[backend.DATA_ROW] = handler
    scanner = FrameScanner(handlers, backend.LIMITS, oversize=lambda kind, length, beginning: None)

    def run() -> None:
        for chunk in chunks:
            scanner.feed(chunk)

    return run


def ignore(buffer: bytes, start: int, end: int) -> None:
    """A handler that does nothing: what remains is the cost of the scanner and of the call."""


def read_values(buffer: bytes, start: int, end: int) -> None:
    backend.column_values(buffer, start, end)


BIND = frontend.Bind(b"", b"_pg3_0", (0,), [b"12345"], (0,))
PARSE = frontend.Parse(b"", b"SELECT id, name FROM users WHERE id = $1", (builtin_types.INT4,))
QUERY = frontend.Query(b"SELECT id, name FROM users WHERE id = 12345")
COLUMNS = backend.RowDescription(
    (
        backend.FieldDescription(b"id", 16_385, 1, builtin_types.INT4, 4),
        backend.FieldDescription(b"name", 16_385, 2, builtin_types.TEXT),
    )
)

SCANS = (
    Case("headers of 200 rows only", walk, MESSAGES),
    Case("scanner, no handler", scan(None, [ROWS]), MESSAGES),
    Case("scanner, handler", scan(ignore, [ROWS]), MESSAGES),
    Case("scanner, no handler, chunks of 1000 bytes", scan(None, PIECES), MESSAGES),
    Case("scanner, handler, chunks of 1000 bytes", scan(ignore, PIECES), MESSAGES),
    Case("scanner and column_values (3 columns)", scan(read_values, [ROWS]), MESSAGES),
    Case("scanner, no handler, one row a chunk", scan(None, [ROW])),
    Case("scanner, handler, one row a chunk", scan(ignore, [ROW])),
)

DECODES = (
    Case("column_values, 3 columns", lambda: backend.column_values(ROW, 5, len(ROW))),
    Case("column_values, 100 columns", lambda: backend.column_values(WIDE_ROW, 0, len(WIDE_ROW))),
    *(
        Case(f"{type(message).__name__}.decode", partial(type(message).decode, message.body()))
        for message in (
            QUERY,
            PARSE,
            BIND,
            frontend.Describe(codes.PORTAL, b""),
            frontend.Execute(b""),
            COLUMNS,
            backend.CommandComplete(b"SELECT 1"),
            backend.ReadyForQuery(codes.IDLE),
        )
    ),
    Case("bytes(Bind)", lambda: bytes(BIND)),
)


def measure(cases: tuple[Case, ...]) -> dict[str, float]:
    """Nanoseconds per message in the best round."""
    repeats = {case.name: max(1, ROUND_NS // max(1, once(case, 20))) for case in cases}
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for case in cases:
            elapsed = once(case, repeats[case.name]) / case.messages
            best[case.name] = min(elapsed, best.get(case.name, elapsed))
    return best


def once(case: Case, repeats: int) -> int:
    """Nanoseconds of one run, averaged over `repeats`."""
    run = case.run
    begin = perf_counter_ns()
    for _ in range(repeats):
        run()
    return (perf_counter_ns() - begin) // repeats


def main() -> None:
    best = measure(SCANS + DECODES)
    reference = best[SCANS[0].name]
    print(f"{'per message':44} {'ns':>8}  {'ratio':>7}")
    for name, nanoseconds in best.items():
        print(f"{name:44} {nanoseconds:8.0f}  {nanoseconds / reference:7.2f}")


if __name__ == "__main__":
    main()
