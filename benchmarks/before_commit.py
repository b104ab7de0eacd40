"""What ``[cache] before_commit`` costs a write: single-row UPDATEs by pgbench, with it and without, beside no proxy.

.venv/bin/python -m benchmarks.before_commit --seconds 5 --rounds 3
"""

import argparse
import contextlib
import statistics
import tempfile

import psycopg

from benchmarks.relay import ROWS, SCHEMA, TABLE, Way, pgbench, rowtap
from proxy.demo.servers import Postgres, Valkey

UPDATE = rf"""
\set id random(1, {ROWS})
UPDATE users SET name = 'changed' WHERE id = :id;
"""


def main() -> None:
    """Print one line for each number of clients: transactions a second, as ratios to the server itself."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8])
    choices = parser.parse_args()
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(Postgres(settings={"autovacuum": "off"}))
        valkey = stack.enter_context(Valkey())
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            for statement in filter(str.strip, SCHEMA.split(";")):
                connection.execute(statement)
        ways = [
            Way("direct", postgres.port),
            stack.enter_context(rowtap("after commit", postgres, valkey, 1, TABLE)),
            stack.enter_context(
                rowtap("before commit", postgres, valkey, 1, "[cache]\nbefore_commit = true\n" + TABLE)
            ),
        ]
        script = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".sql"))
        script.write(UPDATE)
        script.flush()
        print(f"{'clients':>8}{'direct tps':>12}" + "".join(f"{way.name:>16}" for way in ways[1:]))
        for clients in choices.clients:
            run = ["-M", "prepared", "-c", str(clients), "-T", str(choices.seconds), "-n", "-f", script.name]
            rounds = [[pgbench(postgres, way, run).rate for way in ways] for _ in range(choices.rounds)]
            ratios = [statistics.median(rates[number] / rates[0] for rates in rounds) for number in (1, 2)]
            direct = statistics.median(rates[0] for rates in rounds)
            print(f"{clients:>8}{direct:>12,.0f}" + "".join(f"{ratio:>16.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
