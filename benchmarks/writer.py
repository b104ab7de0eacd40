"""What a change costs on its way to Redis: the worker's CPU per change, beside plain pipelined SETs of the same keys.

    python -m benchmarks.writer [--seconds 2] [--rounds 5]

Both speak to the same Valkey, started for the run, and write values of the same sizes with an expiry, 500 in a batch:

    plain    SET key value PX ttl, packed by hiredis, the batch in one write, its replies read. What any client pays
    fill     a Fill per statement of many distinct keys, as captured point SELECTs make them: put, merge, script, answer
    calm     the same, 20 every 2 ms: what a batch costs falls on fewer changes
    store    a Store per statement
    hot      Fills of a few hot keys, which merge
    hash     Fills of hashes of three fields

CPU is this process's alone (Valkey has its own). Ways take turns, round by round; the medians of the rounds' ratios to
plain are what to compare between machines and versions. `put` alone is what a session pays before it goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import hiredis
import uvloop

from cache.changes import Change, Kind
from cache.counts import Counts
from cache.delivery.backlog import Backlog
from cache.delivery.connections import pack
from cache.delivery.writer import MAX_KEYS, Writer
from cache.keys import KeyTemplate
from cache.rules import TableRule, ValueFormat
from proxy.demo.servers import Valkey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cache.changes import Value

TTL = 3_600_000
TURN = 64
"""Changes put in one turn of the event loop, as by that many busy sessions."""


class Sample(NamedTuple):
    """What a second of work came to."""

    changes: int
    cpu: float
    """Seconds of this process."""
    wall: float
    put: float = 0.0
    """CPU seconds of ``cpu`` that ``put`` took."""

    @property
    def microseconds(self) -> float:
        return self.cpu / self.changes * 1e6


def make_rule(form: ValueFormat) -> TableRule:
    name = f"bench_{form.value}"
    template = KeyTemplate.default(database="d", schema="public", table=name, key_columns=("id",))
    return TableRule("d", "public", name, ("id",), ("v",), template, form, ttl=TTL, label=f"public.{name}")


RULES = {form: make_rule(form) for form in (ValueFormat.STRING, ValueFormat.HASH)}
FIELDS: Value = {b"name": b"Ada Lovelace", b"email": b"ada@example.org", b"id": b"12345"}


class Work:
    """One worker's backlog and writer, and the changes sessions put there."""

    def __init__(self, url: str) -> None:
        self.backlog = Backlog(
            RULES.values(), max_backlog=100_000, counts=Counts.of(rule.label for rule in RULES.values())
        )
        self.writer = Writer(self.backlog, url, worker="bench")

    async def settle(self) -> None:
        while self.backlog.pending or not self.writer.connected:  # noqa: ASYNC110 - nothing tells when that is
            await asyncio.sleep(0.001)

    async def run(
        self,
        seconds: float,
        kind: Kind,
        keys: int,
        rule: TableRule,
        value: Value,
        *,
        turn: int = TURN,
        pause: float = 0,
    ) -> Sample:
        names = [rule.template.render([b"%d" % number]) for number in range(keys)]
        backlog = self.backlog
        done, put_ns = 0, 0
        began = time.monotonic()
        cpu = time.process_time_ns()
        spent = 0
        while time.monotonic() - began < seconds:
            made = []
            # Making the changes is the sessions' work, not the writer's.
            mark = time.process_time_ns()
            for _ in range(turn):
                made.append([Change(kind, rule, names[done % keys], value, backlog.seq, time.monotonic_ns())])
                done += 1
            start = time.process_time_ns()
            spent += start - mark
            for changes in made:
                backlog.put(changes)
            put_ns += time.process_time_ns() - start
            await asyncio.sleep(pause if backlog.waiting < 4 * MAX_KEYS else 0.001)
        await self.settle()
        cpu = time.process_time_ns() - cpu - spent
        return Sample(done, cpu / 1e9, time.monotonic() - began, put_ns / 1e9)


async def plain(port: int, seconds: float) -> Sample:
    """The least a client of Redis can do."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    names = [b"plain:%d" % number for number in range(10_000)]
    parser = hiredis.Reader()
    done = 0
    began = time.monotonic()
    cpu = time.process_time_ns()
    while time.monotonic() - began < seconds:
        keys = [names[(done + i) % len(names)] for i in range(MAX_KEYS)]
        writer.write(b"".join(pack((b"SET", key, b"Ada Lovelace", b"PX", TTL)) for key in keys))
        left = MAX_KEYS
        while left:
            parser.feed(await reader.read(65536))
            while parser.gets():
                left -= 1
        done += MAX_KEYS
    cpu = time.process_time_ns() - cpu
    writer.close()
    return Sample(done, cpu / 1e9, time.monotonic() - began)


def ways(work: Work, port: int, seconds: float) -> dict[str, Callable[[], Awaitable[Sample]]]:
    string, hashes = RULES[ValueFormat.STRING], RULES[ValueFormat.HASH]
    return {
        "plain": lambda: plain(port, seconds),
        "fill": lambda: work.run(seconds, Kind.FILL, 10_000, string, b"Ada Lovelace"),
        "calm": lambda: work.run(seconds, Kind.FILL, 10_000, string, b"Ada Lovelace", turn=20, pause=0.002),
        "store": lambda: work.run(seconds, Kind.STORE, 10_000, string, b"Ada Lovelace"),
        "hot": lambda: work.run(seconds, Kind.FILL, 20, string, b"Ada Lovelace"),
        "hash": lambda: work.run(seconds, Kind.FILL, 10_000, hashes, FIELDS),
    }


def report(samples: dict[str, list[Sample]]) -> None:
    print(f"{'':8} {'changes/s':>10} {'µs CPU/change':>14} {'of it put':>10} {'to plain':>8}")
    for name, taken in samples.items():
        speed = statistics.median(sample.changes / sample.wall for sample in taken)
        cost = statistics.median(sample.microseconds for sample in taken)
        put = statistics.median(sample.put / sample.changes * 1e6 for sample in taken)
        ratio = statistics.median(
            sample.microseconds / base.microseconds for sample, base in zip(taken, samples["plain"], strict=True)
        )
        print(f"{name:8} {speed:10,.0f} {cost:14.2f} {put:10.2f} {ratio:8.2f}")


async def measure(seconds: float, rounds: int) -> dict[str, list[Sample]]:
    with Valkey() as server:
        work = Work(server.url)
        task = asyncio.create_task(work.writer.run())
        await work.settle()
        chosen = ways(work, server.port, seconds)
        samples: dict[str, list[Sample]] = {name: [] for name in chosen}
        for _ in range(rounds):
            for name, way in chosen.items():
                samples[name].append(await way())
        await work.writer.drain(10)
        await task
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each way and round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    report(uvloop.run(measure(arguments.seconds, arguments.rounds)))


if __name__ == "__main__":
    main()
