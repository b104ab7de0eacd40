"""Rowtap beside the floor and beside PostgreSQL alone: throughput, CPU per query, MB/s, memory per session.

    python -m benchmarks.relay [--seconds 2] [--rounds 3] [--clients 1,8,64] [--modes simple,extended,prepared]
                               [--workers 1] [--only points,bulk,memory] [--json FILE]

Everything runs on this machine from the wheels: PostgreSQL, Valkey, pgbench. The four ways to the server (direct,
floor, Rowtap with nothing to capture, Rowtap with every row captured) take turns within each round, so that a slow
minute of the machine meets them all, and the ratio is the median of the rounds'. benchmarks/README.md says how to
read the numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import redis
from rich.console import Console
from rich.table import Table

from proxy.demo.servers import HOST, Postgres, Valkey, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 1_000
BULK_ROWS = 1_000_000
SESSIONS = 200
POINT = "\\set id random(1, {rows})\nSELECT id, name FROM users WHERE id = :id;\n"
BULK = {"SELECT": "SELECT * FROM bulk", "COPY": "COPY bulk TO STDOUT"}
SCHEMA = f"""
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO users SELECT n, 'user number ' || n FROM generate_series(1, {ROWS}) n;
CREATE TABLE bulk AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, {BULK_ROWS}) n;
VACUUM ANALYZE;
"""
CONFIG = """
[proxy]
listen = "{host}:{port}"
workers = {workers}
[postgres]
host = "{host}"
port = {postgres}
database = "postgres"
[redis]
url = "{redis}"
[admin]
listen = "{host}:{admin}"
"""
TABLE = """
[[table]]
name = "public.users"
key = "id"
value = "name"
redis_key = "users:{id}"
"""
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the server. `pid` is the process on it, if there is one, and `admin` Rowtap's admin port."""

    name: str
    port: int
    pid: int | None = None
    admin: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run measured: queries or MB a second, and the CPU time on the way in µs a query or ms a MB."""

    rate: float
    cpu: float | None


def main() -> None:
    arguments = parse()
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(Postgres(settings={"max_connections": "400", "autovacuum": "off"}))
        valkey = stack.enter_context(Valkey())
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            for statement in filter(str.strip, SCHEMA.split(";")):
                connection.execute(statement)
        ways = [
            Way("direct", postgres.port),
            stack.enter_context(floor(postgres)),
            stack.enter_context(rowtap("rowtap", postgres, valkey, arguments.workers)),
            stack.enter_context(rowtap("capturing", postgres, valkey, arguments.workers, TABLE)),
        ]
        console = Console()
        console.width = max(console.width, 100)
        results: dict[str, Any] = {}
        if "memory" in arguments.only:  # first: a heap that has been larger would hide what sessions take
            results["memory"] = memory(console, ways[1:])
        if "points" in arguments.only:
            results["points"] = points(console, arguments, postgres, valkey, ways)
        if "bulk" in arguments.only:
            results["bulk"] = bulk(console, arguments, ways[:3])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""

    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=2, help="length of a pgbench run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=words, default=["1", "8", "64"])
    parser.add_argument("--modes", type=words, default=["simple", "extended", "prepared"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", type=words, default=["points", "bulk", "memory"])
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    return parser.parse_args()


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours from start to SIGTERM; its output goes to `log`."""
    with log.open("wb") as output:
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def floor(postgres: Postgres) -> Iterator[Way]:
    """benchmarks/floor.py in front of `postgres`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.floor", f"{HOST}:{port}", f"{HOST}:{postgres.port}"]
    with tempfile.TemporaryDirectory() as directory, process(command, Path(directory) / "log") as child:
        wait_for(port, child, Path(directory) / "log")
        yield Way("floor", port, child.pid)


@contextlib.contextmanager
def rowtap(name: str, postgres: Postgres, valkey: Valkey, workers: int, tables: str = "") -> Iterator[Way]:
    """Rowtap in front of `postgres`, capturing into a database of `valkey` what `tables` configures."""
    port, admin = free_port(), free_port()
    text = CONFIG.format(
        host=HOST,
        port=port,
        postgres=postgres.port,
        admin=admin,
        workers=workers,
        redis=f"{valkey.url}/{bool(tables):d}",
    )
    with tempfile.TemporaryDirectory() as directory:
        config, log = Path(directory) / "config.toml", Path(directory) / "log"
        config.write_text(text + tables)
        with process([sys.executable, "-m", "proxy", "serve", "--config", str(config)], log) as child:
            wait_for(port, child, log)
            yield Way(name, port, child.pid, admin)


def wait_for(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    """Return when something listens on the port; end the benchmark with the child's log if it does not."""
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        if child.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"process {child.pid} does not listen on port {port}:\n{log.read_text()}")
        time.sleep(0.02)


def family(pid: int) -> Iterator[int]:
    """A process and its descendants, on Linux; itself elsewhere."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


def cpu_seconds(way: Way) -> float | None:
    """CPU time of the way's processes so far, on Linux. Exact; tick-based user and system times are not."""
    if way.pid is None or not Path("/proc/self/schedstat").exists():
        return None
    threads = (stat for pid in family(way.pid) for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(stat.read_text().split()[0]) for stat in threads) / 1e9


def points(
    console: Console, arguments: argparse.Namespace, postgres: Postgres, valkey: Valkey, ways: list[Way]
) -> list[dict[str, Any]]:
    """Point SELECTs by pgbench."""
    table = Table(title="point SELECTs: queries a second, and CPU on the way", title_justify="left")
    for title in ("mode", "clients", "direct\nq/s", "floor\nq/s", "floor\nCPU µs"):
        table.add_column(title, justify="right")
    for way in ways[2:]:
        table.add_column(f"{way.name}\nq/s\n÷ floor", justify="right")
        table.add_column(f"{way.name}\nCPU\n÷ floor", justify="right")
    results = []
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(POINT.format(rows=ROWS))
        script.flush()
        for mode in arguments.modes:
            for clients in arguments.clients:
                console.print(f"  {mode}, {clients} clients …", style="dim")
                run = ["-M", mode, "-c", clients, "-T", str(arguments.seconds), "-n", "-f", script.name]
                rounds = [[pgbench(postgres, way, run) for way in ways] for _ in range(arguments.rounds)]
                table.add_row(mode, clients, *columns(rounds))
                results.append({"mode": mode, "clients": int(clients), "rounds": described(ways, rounds)})
    console.print(table)
    nothing_lost(console, ways[3], valkey)
    return results


def pgbench(postgres: Postgres, way: Way, run: list[str]) -> Sample:
    """One run through one way."""
    command = [str(postgres.bindir / "pgbench"), "-h", HOST, "-p", str(way.port), "-U", postgres.user, *run, "postgres"]
    before = cpu_seconds(way)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = cpu_seconds(way)
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    count = re.search(r"transactions actually processed: (\d+)", done.stdout)
    if done.returncode != 0 or rate is None or count is None:
        sys.exit(f"pgbench through {way.name} failed:\n{done.stderr or done.stdout}")
    cpu = None if before is None or after is None else (after - before) / int(count[1]) * 1e6
    return Sample(float(rate[1]), cpu)


def columns(rounds: list[list[Sample]]) -> Iterator[str]:
    """The cells of one line: absolute numbers for what there is without Rowtap, ratios to the floor for Rowtap."""
    yield f"{statistics.median(samples[0].rate for samples in rounds):,.0f}"
    yield f"{statistics.median(samples[1].rate for samples in rounds):,.0f}"
    yield "" if rounds[0][1].cpu is None else f"{statistics.median(samples[1].cpu or 0 for samples in rounds):.1f}"
    for index in range(2, len(rounds[0])):
        yield f"{statistics.median(samples[index].rate / samples[1].rate for samples in rounds):.2f}"
        ratios = [ratio for samples in rounds if (ratio := cpu_ratio(samples[index], samples[1])) is not None]
        yield f"{statistics.median(ratios):.2f}" if ratios else ""


def cpu_ratio(sample: Sample, floor: Sample) -> float | None:
    """CPU of the one ÷ CPU of the other, where both are known."""
    return sample.cpu / floor.cpu if sample.cpu and floor.cpu else None


def described(ways: list[Way], rounds: list[list[Sample]]) -> list[dict[str, dict[str, float | None]]]:
    """Every sample, for --json."""
    return [
        {way.name: {"rate": sample.rate, "cpu": sample.cpu} for way, sample in zip(ways, samples, strict=True)}
        for samples in rounds
    ]


def nothing_lost(console: Console, way: Way, valkey: Valkey) -> None:
    """Read every row once, as fast as a pipeline can; each must be in Redis afterwards, or the benchmark fails."""
    assert way.admin is not None
    with (
        redis.Redis.from_url(f"{valkey.url}/1") as client,
        psycopg.connect(f"host={HOST} port={way.port} user=postgres dbname=postgres", autocommit=True) as connection,
    ):
        settle(way.admin)
        for key in client.scan_iter("users:*", 1000):
            client.delete(key)
        with connection.pipeline():
            for number in range(1, ROWS + 1):
                connection.execute("SELECT id, name FROM users WHERE id = %s", (number,))
        settle(way.admin)
        found = sum(1 for _ in client.scan_iter("users:*", 1000))
    console.print(f"rows in Redis after each was read once: {found} of {ROWS}")
    if found != ROWS:
        sys.exit(f"rows were lost; /status says {status(way.admin)}")


def settle(port: int) -> None:
    """Wait until all that was observed is in Redis."""
    while status(port)["pending_changes"]:
        time.sleep(0.05)


def status(port: int) -> Any:
    """Rowtap's /status."""
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
        connection.request("GET", "/status")
        return json.load(connection.getresponse())


def bulk(console: Console, arguments: argparse.Namespace, ways: list[Way]) -> list[dict[str, Any]]:
    """A million rows at once."""
    table = Table(title=f"{BULK_ROWS:,} rows, not captured: MB a second, CPU on the way", title_justify="left")
    for title in (
        "statement",
        "direct\nMB/s",
        "floor\nMB/s",
        "floor CPU\nms/MB",
        "rowtap MB/s\n÷ floor",
        "rowtap CPU\n÷ floor",
    ):
        table.add_column(title, justify="right")
    results = []
    for name, sql in BULK.items():
        console.print(f"  {name} …", style="dim")
        rounds = [[drain(way, sql) for way in ways] for _ in range(arguments.rounds)]
        table.add_row(name, *columns(rounds))
        results.append({"statement": name, "rounds": described(ways, rounds)})
    console.print(table)
    return results


def drain(way: Way, sql: str) -> Sample:
    """Read an answer as fast as it comes and look at none of it but its end."""
    buffer = bytearray(1 << 20)
    with logged_in(way.port) as connection:
        before, began, size = cpu_seconds(way), time.perf_counter(), 0
        query = sql.encode() + b"\0"
        connection.sendall(b"Q" + struct.pack("!i", len(query) + 4) + query)
        tail = b""
        while not tail.endswith(b"Z\0\0\0\5I"):
            count = connection.recv_into(buffer)
            if not count:
                sys.exit(f"the connection through {way.name} ended in the middle of {sql}")
            size += count
            tail = (tail + buffer[max(count - 6, 0) : count])[-6:]
        took, after = time.perf_counter() - began, cpu_seconds(way)
    if size < 10 * BULK_ROWS:
        sys.exit(f"{sql} through {way.name} gave {size} bytes only")
    return Sample(size / took / 1e6, None if before is None or after is None else (after - before) / size * 1e9)


def logged_in(port: int) -> socket.socket:
    """A connection behind its first ReadyForQuery."""
    connection = socket.create_connection((HOST, port), 30)
    words = b"user\0postgres\0database\0postgres\0\0"
    connection.sendall(struct.pack("!ii", len(words) + 8, 196608) + words)
    answer = b""
    while not answer.endswith(b"Z\0\0\0\5I"):
        data = connection.recv(65536)
        if not data:
            sys.exit(f"no session on port {port}: {answer!r}")
        answer += data
    return connection


def memory(console: Console, ways: list[Way]) -> dict[str, float]:
    """What a session that does nothing costs."""
    results = {}
    for way in ways:
        for connection in [logged_in(way.port) for _ in range(20)]:
            connection.close()  # what is allocated once is not a session's
        time.sleep(0.5)
        before = resident(way)
        if before is None:
            console.print("memory is measured on Linux only")
            return {}
        connections = [logged_in(way.port) for _ in range(SESSIONS)]
        time.sleep(0.5)
        results[way.name] = ((resident(way) or 0) - before) / SESSIONS
        for connection in connections:
            connection.close()
        console.print(f"memory of an idle session, {way.name}: {results[way.name]:.1f} KiB")
    return results


def resident(way: Way) -> float | None:
    """Private and shared memory in use, in KiB, shared pages by their share."""
    if way.pid is None or not Path("/proc/self/smaps_rollup").exists():
        return None
    texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family(way.pid))
    return sum(float(match[1]) for text in texts if (match := re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)))


if __name__ == "__main__":
    main()
