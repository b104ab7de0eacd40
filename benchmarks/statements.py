"""What it costs to know a statement again: by its exact text, by its template, by parsing it.

    python benchmarks/statements.py

For each text three times in µs, best of five: a dict hit on the exact text (what a prepared statement costs), `split`
and a dict hit on the template (what a text costs that differs in literals only), and sqlglot's parse of the whole text
(what a new text costs before it is even analysed); then the two ratios.
"""

from __future__ import annotations

import timeit
from typing import TYPE_CHECKING

import sqlglot
from sqlglot.errors import ErrorLevel

from cache.sql.templates import split

if TYPE_CHECKING:
    from collections.abc import Callable

TRACE = b"/*traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01'*/"
COLUMNS = b", ".join(b"u.column_%d AS u_%d, o.column_%d" % (n, n, n) for n in range(25))
TEXTS = {
    "point SELECT": b"SELECT id, name FROM users WHERE id = 42 AND name = 'alice'",
    "ORM SELECT": b'SELECT "users"."id", "users"."name" FROM "users" WHERE "users"."id" = 42 LIMIT 21',
    "ORM UPDATE": b'UPDATE "users" SET "name" = \'alice\' WHERE "users"."id" = 42',
    "INSERT": b"INSERT INTO users (id, name) VALUES (42, 'alice')",
    "traced SELECT": b"SELECT name FROM users WHERE id = 42 " + TRACE,
    "IN, 16 elements": b"SELECT id, name FROM users WHERE id IN (%s)" % b", ".join(b"%d" % n for n in range(16)),
    "IN, 1,000 elements": b"SELECT id, name FROM users WHERE id IN (%s)" % b", ".join(b"%d" % n for n in range(1000)),
    "join of 1 kB": b"SELECT " + COLUMNS + b" FROM users AS u JOIN orders AS o ON o.user_id = u.id WHERE u.id = 42",
}


def microseconds(function: Callable[[], object]) -> float:
    """The best of five runs, each of about 20 ms."""
    timer = timeit.Timer(function)
    count, _ = timer.autorange()
    count = max(1, count // 10)
    return min(timer.repeat(5, count)) / count * 1e6


def measure(text: bytes) -> tuple[float, float, float]:
    """Dict hit, split with dict hit, and parse."""
    found = split(text)
    assert found is not None
    memo = {text: None, found[0]: None}
    sql = text.decode()

    def by_template() -> None:
        again = split(text)
        assert again is not None
        memo[again[0]]

    return (
        microseconds(lambda: memo[text]),
        microseconds(by_template),
        microseconds(lambda: sqlglot.parse(sql, dialect="postgres", error_level=ErrorLevel.IMMEDIATE)),
    )


def main() -> None:
    print(f"{'':20} {'bytes':>6} {'hit':>6} {'template':>9} {'parse':>9} {'parse/template':>15} {'template/hit':>13}")
    for name, text in TEXTS.items():
        hit, template, parse = measure(text)
        print(
            f"{name:20} {len(text):6,} {hit:6.2f} {template:9.2f} {parse:9.1f} "
            f"{parse / template:15.1f} {template / hit:13.1f}"
        )


if __name__ == "__main__":
    main()
