"""A worker's backlog and writer, for tests against a real server."""

import asyncio
import time
from contextlib import asynccontextmanager

from cache.changes import Change, Kind
from cache.counts import Counts
from cache.delivery.backlog import Backlog
from cache.delivery.writer import Writer
from cache.keys import KeyTemplate
from cache.rules import TableRule, ValueFormat


def make_rule(table="users", form=ValueFormat.STRING, **facts):
    template = KeyTemplate.default(database="d", schema="public", table=table, key_columns=("id",))
    return TableRule("d", "public", table, ("id",), ("v",), template, form, label=f"public.{table}", **facts)


class Worker:
    """A backlog and its writer."""

    def __init__(self, url, name="w", rules=None, *, max_backlog=100_000, fence_life=60_000, **options):
        self.rules = rules or [make_rule()]
        self.rule = self.rules[0]
        self.events: list[str] = []
        self.backlog = Backlog(
            self.rules,
            max_backlog=max_backlog,
            counts=Counts.of(r.label for r in self.rules),
            fence_life=fence_life,
        )
        options = {"timeout": 5.0, "max_delay": 0.1, "heartbeat": 0.5} | options
        self.writer = Writer(
            self.backlog, url, worker=name, on_event=lambda level, event, facts: self.events.append(event), **options
        )
        self.counts = self.backlog.counts.rule(self.rule.label)

    def change(self, kind, key=b"users:1", value=None, *, rule=None, stamp=None, **facts):
        seq, sent_ns = stamp or self.stamp()
        return Change(kind, rule or self.rule, key, value, seq, sent_ns, **facts)

    def stamp(self):
        return self.backlog.seq, time.monotonic_ns()

    def fill(self, value, key=b"users:1", **facts):
        self.backlog.put([self.change(Kind.FILL, key, value, **facts)])

    def store(self, value, key=b"users:1", **facts):
        self.backlog.put([self.change(Kind.STORE, key, value, **facts)])

    def evict(self, key=b"users:1", **facts):
        self.backlog.put([self.change(Kind.EVICT, key, **facts)])

    def flush(self, **facts):
        self.backlog.put([self.change(Kind.FLUSH, b"", **facts)])

    async def settle(self, seconds=15):
        async with asyncio.timeout(seconds):
            while self.backlog.pending or not self.writer.connected:
                await asyncio.sleep(0.002)

    async def until(self, condition, seconds=15):
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)


async def load(worker, rows, dice, going):
    """Reads and writes of random ``rows``, whose values count up, while ``going()``."""
    while going():
        key = dice.choice(list(rows))
        stamp = worker.stamp()
        await asyncio.sleep(dice.random() * 0.005)
        writes = dice.random() < 0.5
        rows[key] += writes
        value = b"%d" % rows[key]
        await asyncio.sleep(dice.random() * 0.005)
        (worker.store if writes else worker.fill)(value, key=key, stamp=stamp)


@asynccontextmanager
async def working(url, name="w", *, settle=True, **options):
    """A worker that works. What happens to Redis meanwhile must not look like a fault of our own."""
    worker = Worker(url, name, **options)
    task = asyncio.create_task(worker.writer.run())
    try:
        if settle:
            await worker.settle()
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if "on_internal_error" not in options:
        assert worker.backlog.counts.internal_errors == {}
