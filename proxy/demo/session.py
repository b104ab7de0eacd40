"""``rowtap demo``: an embedded PostgreSQL and Valkey, the proxy between them, and a short session that is checked.

Each statement goes through the proxy as any client's does, and is printed beside what Redis holds for its key before
and after it. The demo checks what it says: exit status 1 means that Redis did not hold what it should have.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import psycopg
import redis
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from proxy import admin_client
from proxy.admin_client import AdminError
from proxy.demo.server_process import ServerProcess
from proxy.demo.servers import HOST, EmbeddedError, Postgres, Valkey, free_port, postgres_bindir

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = (
    "CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL)",
    "INSERT INTO users VALUES (1, 'Ada Lovelace'), (2, 'Grace Hopper'), (3, 'Edsger Dijkstra')",
)
CONFIG = """\
[proxy]
listen = "{host}:{port}"
shutdown_timeout = "2s"

[postgres]
host = "{postgres.host}"
port = {postgres.port}
database = "postgres"

[redis]
url = "{valkey.url}/0"

[admin]
listen = "{host}:{admin_port}"

[[table]]
name = "public.users"
key = "id"
value = "name"
redis_key = "users:{{id}}"
"""
STALL_TIMEOUT = 10.0
"""Seconds without progress after which changes on their way to Redis count as lost, and for an answer of Rowtap's."""
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, the row it reads or writes, and the value that Redis must hold for the row afterwards."""

    sql: str
    row: int
    expected: str | None
    """None: no key."""
    parameters: tuple[object, ...] = ()
    heading: str = ""
    """What this statement shows, printed above it."""


STEPS = (
    Step("SELECT id, name FROM users WHERE id = 1", 1, "Ada Lovelace", heading="a read fills its key"),
    Step("UPDATE users SET name = 'Ada King' WHERE id = 1", 1, "Ada King", heading="a write stores the new value"),
    Step("BEGIN", 1, "Ada King", heading="nothing reaches Redis before its commit, or after a rollback"),
    Step("UPDATE users SET name = 'Ada Byron' WHERE id = 1", 1, "Ada King"),
    Step("ROLLBACK", 1, "Ada King"),
    Step("SELECT name FROM users WHERE id = $1", 2, "Grace Hopper", (2,), heading="prepared statements are followed"),
    Step("UPDATE users SET name = $1 WHERE id = $2", 2, "Amazing Grace", ("Amazing Grace", 2)),
    Step(
        "UPDATE users SET name = upper(name) WHERE id = 2",
        2,
        None,
        heading="a key whose value only PostgreSQL knows is removed; the next read fills it",
    ),
    Step("SELECT id, name FROM users WHERE id = 2", 2, "AMAZING GRACE"),
    Step("DELETE FROM users WHERE id = 1", 1, None, heading="the key of a deleted row is removed"),
)


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class RowtapProcess(ServerProcess):
    """The proxy, started as an operator starts it, with a configuration of its own."""

    title = "Rowtap"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGTERM
    port_taken = "in use"

    def __init__(self, postgres: Postgres, valkey: Valkey) -> None:
        super().__init__(None, None)
        self._postgres, self._valkey = postgres, valkey
        self._admin_port = 0
        # The directory from which this package was imported: the process imports the same one, installed or not.
        self._cwd = Path(__file__).resolve().parents[2]

    def settle(self) -> None:
        """Return when every change observed so far is in Redis. DemoError if that takes too long."""
        pending, since = -1, time.monotonic()
        while now := self._pending_changes():
            if now != pending:
                pending, since = now, time.monotonic()
            elif time.monotonic() - since > STALL_TIMEOUT:
                raise DemoError(f"{now} changes have been on their way to Redis for {STALL_TIMEOUT:g} seconds")
            time.sleep(0.002)

    def dsn(self) -> str:
        """A libpq connection string through the proxy."""
        return f"host={self.host} port={self.port} user={self._postgres.user} dbname=postgres"

    def _command(self) -> list[str]:
        self._admin_port = free_port()  # Here, because this is called again if a port was taken.
        config = self.directory / "config.toml"
        config.write_text(
            CONFIG.format(
                host=HOST, port=self.port, admin_port=self._admin_port, postgres=self._postgres, valkey=self._valkey
            )
        )
        return [sys.executable, "-m", "proxy", "serve", "--config", str(config)]

    def _answers(self, pid: int) -> bool:
        try:
            self._get("/healthz")
        except AdminError:
            return False
        return True

    def _pending_changes(self) -> int | None:
        try:
            status = json.loads(self._get("/status"))
        except AdminError as error:
            raise DemoError(f"{error}; Rowtap's log ends:\n{self.log_text()[-2000:]}") from None
        return cast("int | None", status["pending_changes"])

    def _get(self, path: str) -> bytes:
        return admin_client.get(HOST, self._admin_port, path, timeout=STALL_TIMEOUT)


def run(*, keep: bool = False) -> int:
    """Run the demo; with `keep` wait for Ctrl-C afterwards. Returns the exit status."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    with _sigterm_exits():
        try:
            return _run(console, keep=keep)
        except (EmbeddedError, DemoError, psycopg.Error, redis.RedisError, OSError) as error:
            Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, style="red", soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


def _run(console: Console, *, keep: bool) -> int:
    with contextlib.ExitStack() as stack:
        with console.status("starting PostgreSQL, Valkey and Rowtap"):
            postgres = stack.enter_context(Postgres())
            valkey = stack.enter_context(Valkey())
            with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
                for statement in SAMPLE:
                    connection.execute(statement)
            rowtap = stack.enter_context(RowtapProcess(postgres, valkey))
        client = stack.enter_context(redis.Redis.from_url(f"{valkey.url}/0", decode_responses=True))
        _print_setup(console, postgres, valkey, rowtap)
        wrong = _run_steps(console, rowtap, client) + _compare(console, postgres, client)
        if keep:
            _wait_for_ctrl_c(console, valkey, rowtap)
        return 1 if wrong else 0


def _print_setup(console: Console, postgres: Postgres, valkey: Valkey, rowtap: RowtapProcess) -> None:
    arrow = _arrow(console)
    versions = f"PostgreSQL {postgres.version}", f"Valkey {valkey.version}"
    console.print()
    console.print(f"  psycopg {arrow} [bold green]Rowtap[/] {arrow} [bold]{versions[0]}[/]")
    console.print(f"{' ' * len('  psycopg > Rowtap ')}{arrow} [bold]{versions[1]}[/], which has the Redis protocol")
    console.print()
    # The part of the configuration that the example is about.
    table = CONFIG[CONFIG.index("[[table]]") :].replace("{{id}}", "{id}")
    console.print(Text(textwrap.indent(f"# config.toml\n{table}", "  "), "dim"))


def _run_steps(console: Console, rowtap: RowtapProcess, client: redis.Redis) -> int:
    """Run all steps. Returns after how many of them Redis did not hold what was expected."""
    _print_row(console, *(Text(words, "bold") for words in ("through Rowtap", "key", "Redis before", "Redis after")))
    wrong = 0
    with psycopg.connect(rowtap.dsn(), autocommit=True) as connection, psycopg.RawCursor(connection) as cursor:
        for step in STEPS:
            key = f"users:{step.row}"
            before = client.get(key)
            cursor.execute(step.sql.encode(), step.parameters or None, prepare=bool(step.parameters))
            rowtap.settle()
            after = client.get(key)
            _print_step(console, step, key, before, after)
            wrong += after != step.expected
    return wrong


def _print_step(console: Console, step: Step, key: str, before: object, after: object) -> None:
    if step.heading:
        console.print()
        console.print(Text(f"-- {step.heading}", "cyan"))
    statement = Syntax("", "postgresql", theme="ansi_dark", background_color="default").highlight(step.sql)
    statement.rstrip()
    statement.no_wrap = False
    if step.parameters:
        bound = ", ".join(f"${number} = {value}" for number, value in enumerate(step.parameters, 1))
        statement.append(f"\n-- {bound}", "dim")
    right = after == step.expected
    _print_row(console, statement, Text(key), _value(before), _value(after, "bold green" if right else "bold red"))
    if not right:
        console.print(
            Text(f"WRONG: Redis should hold {'no such key' if step.expected is None else step.expected}", "bold red")
        )


def _print_row(console: Console, *cells: Text) -> None:
    # A table for each row, so that each is printed at once; with fixed widths they look like one table.
    row = Table.grid(padding=(0, 2, 0, 0))
    for width in (min(max(console.width - 41, 30), 58), 7, 13, 13):
        row.add_column(width=width)
    row.add_row(*cells)
    console.print(row)


def _value(value: object, style: str = "") -> Text:
    return Text("(absent)", "dim") if value is None else Text(str(value), style)


def _compare(console: Console, postgres: Postgres, client: redis.Redis) -> int:
    """Compare all keys with their rows, asking PostgreSQL directly. Returns how many are not equal to them."""
    with psycopg.connect(postgres.dsn()) as connection:
        rows = {f"users:{row}": name for row, name in connection.execute("SELECT id, name FROM users")}
    keys = sorted(client.scan_iter("users:*"))
    stale = [key for key in keys if client.get(key) != rows.get(key)]
    console.print()
    if stale:
        console.print(Text(f"WRONG: not equal to PostgreSQL: {', '.join(stale)}", "bold red"))
    else:
        console.print(f"Keys in Redis: {len(keys)}. Every one is equal to its row in PostgreSQL.", style="bold green")
    return len(stale)


def _wait_for_ctrl_c(console: Console, valkey: Valkey, rowtap: RowtapProcess) -> None:
    """Print how to connect and wait for Ctrl-C."""
    psql = "psql" if shutil.which("psql") else str(postgres_bindir() / "psql")
    console.print()
    # soft_wrap: a line that users copy must not be broken.
    console.print(f'  {psql} "{rowtap.dsn()}"', soft_wrap=True, markup=False)
    console.print(f"  redis-cli -u {valkey.url}/0", soft_wrap=True, markup=False)
    console.print()
    console.print("Read a row with the first, GET users:3 with the second. Ctrl-C ends the demo.")
    with contextlib.suppress(KeyboardInterrupt):
        while rowtap.running:
            time.sleep(0.5)
        raise DemoError(f"Rowtap has ended:\n{rowtap.log_text()[-2000:]}")


def _arrow(console: Console) -> str:
    return "→" if console.encoding.startswith("utf") else "->"


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that every `with` ends and all the demo started is stopped, as for Ctrl-C."""

    def exit_with(signum: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, exit_with)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
