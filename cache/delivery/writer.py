"""The one task of a worker that speaks to Redis: sends the backlog's batches, one at a time, over one connection.

It survives everything Redis does: whatever becomes of a batch, its keys end up right or absent. docs/ordering.md says
which rule answers which failure.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from cache.delivery import scripts
from cache.delivery.client import RedisClient
from cache.delivery.faults import Faults, describe, is_expected, is_out_of_memory, is_undone
from cache.delivery.packing import apply_arguments, block_arguments, scanned_arguments
from cache.delivery.registration import Registration
from cache.delivery.scanning import Scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.counts import ErrorReport
    from cache.delivery.backlog import Backlog
    from cache.delivery.batches import Batch

MAX_KEYS = 500
"""Keys in one batch: a script of this size keeps Redis from others for a few milliseconds."""
MAX_BYTES = 1 << 20
SCAN_COUNT = 500
HEARTBEAT = 5.0
LEASE = 30.0
"""Seconds after which a worker that was not heard of counts as dead. One that comes back under its name is noticed at
once."""
TIMEOUT = 5.0
MAX_DELAY = 5.0


class Writer:
    """Sends ``backlog`` to the Redis at ``url``: redis://, rediss://, unix:// or redis+sentinel://.

    ``worker`` names this worker among all that share the Redis, and must be the same when it is started again in its
    place. Times are in seconds. ``on_event`` gets a line for the log: level name, event, facts. ``on_internal_error``
    gets the first of each kind of faults of our own; all are counted.
    """

    def __init__(
        self,
        backlog: Backlog,
        url: str,
        *,
        worker: str,
        flush_interval: float = 0.002,
        timeout: float = TIMEOUT,
        heartbeat: float = HEARTBEAT,
        lease: float = LEASE,
        max_delay: float = MAX_DELAY,
        on_event: Callable[[str, str, dict[str, object]], None] | None = None,
        on_internal_error: ErrorReport | None = None,
    ) -> None:
        self.connected = False
        """This worker is registered in Redis; an open connection alone does not count."""
        self._backlog = backlog
        self._counts = backlog.counts
        self._flush_interval = flush_interval
        self._max_delay = max_delay
        self._on_event = on_event
        self._client = RedisClient(url, timeout)
        self._faults = Faults("writer", backlog.counts, on_internal_error)
        self.registration = Registration(backlog, worker, lease=lease, heartbeat=heartbeat, log=self._log)
        self._scan: Scan | None = None
        self._ever_connected = False
        self._ending = False
        self._ended = asyncio.Event()
        self._running = False

    async def run(self) -> None:
        """Work until ``drain`` is done or the task is cancelled."""
        failures = 0
        self._running = True
        try:
            while not self._finished():
                try:
                    await self._connect()
                    failures = 0
                    await self._serve()
                except Exception as error:  # noqa: BLE001 - ending here would leave what waits stale for ever
                    failures += 1
                    await self._give_up_connection(error, first=failures == 1)
                    await self._pause(max(failures, self._faults.in_a_row))
            await self._leave()
        finally:
            self._running = False
            await self._client.close()
            self._ended.set()

    async def drain(self, seconds: float) -> bool:
        """Send what waits and end ``run``, within ``seconds``. False: something was left, and the registration
        stays in Redis, so that the next start flushes the tables. Put nothing into the backlog afterwards."""
        self._ending = True
        self._backlog.wake()
        if not self._running:
            return self._backlog.pending == 0
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return self._backlog.pending == 0

    async def check(self) -> list[str]:
        """What is wrong with this Redis, in words, over a connection of its own; raises nothing."""
        try:
            return await self._client.problems()
        except Exception as error:  # noqa: BLE001 - a check that fails must not end what asked for it
            if is_expected(error):
                return [f"Redis does not answer: {describe(error)}"]
            self._faults.report(error)
            return [f"Redis could not be checked: {describe(error)}"]

    def reconfigured(self) -> None:
        """The backlog's rules changed: tell Redis at the next opportunity."""
        self.registration.due = 0.0
        self._backlog.wake()

    # The connection.

    async def _connect(self) -> None:
        facts = await self._client.connect()
        await self.registration.join(self._client)
        if self._ever_connected:
            self._counts.redis_reconnects += 1
        self._ever_connected = True
        self._log("info", "redis connected", version=facts.get("valkey_version") or facts.get("redis_version"))
        self._set_connected(True)

    async def _give_up_connection(self, error: Exception, *, first: bool) -> None:
        if is_expected(error):
            self._counts.redis_errors += 1
            self._log("warning" if first else "debug", "redis lost", error=describe(error))
        else:
            self._faults.report(error)
        self._set_connected(False)
        self._put_back_batch(outcome_unknown=not is_undone(error))
        self._scan = None
        self._backlog.flushes.end_scan(complete=False)
        await self._client.close()

    def _put_back_batch(self, *, outcome_unknown: bool) -> None:
        """The connection is given up: the batch that was under way, if there was one, waits again."""
        batch = self._backlog.batches.in_flight
        if batch is None:
            return
        try:
            self._backlog.batches.put_back(batch, outcome_unknown=outcome_unknown)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch's keys must not stay as they are
            self._faults.report(error)
            # Which of its changes are lost cannot be told any more.
            self._backlog.flush([rule.label for rule in self._backlog.rules], may_commit_later=True)

    async def _pause(self, failures: int) -> None:
        """Before the next try: longer with each of ``failures`` in a row."""
        delay = min(self._max_delay, 0.05 * 2 ** min(failures, 12)) * (0.5 + random.random() / 2)  # noqa: S311 - jitter
        await asyncio.sleep(min(delay, 0.1) if self._ending else delay)

    def _set_connected(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            self._backlog.blocks.set_reachable(connected)

    def _log(self, level: str, event: str, /, **facts: object) -> None:
        if self._on_event is not None:
            self._on_event(level, event, facts)

    # Work.

    async def _serve(self) -> None:
        backlog, flushes, registration = self._backlog, self._backlog.flushes, self.registration
        while not self._finished():
            if self._scan is None and not flushes.scan_waits:
                await backlog.wait(max(registration.due - time.monotonic(), 0))
                await self._send_block_requests()
                if self._flush_interval and 0 < backlog.waiting < MAX_KEYS:
                    await backlog.linger(self._flush_interval)
            if time.monotonic() >= registration.due:
                await registration.join(self._client)
                backlog.blocks.renew()
            await self._send_block_requests()
            batch = backlog.batches.take(MAX_KEYS, MAX_BYTES)
            if batch is not None:
                await self._send(batch)
            if self._scan is not None or flushes.scan_waits:
                await self._scan_slice()

    def _finished(self) -> bool:
        return self._ending and self._backlog.pending == 0

    async def _send_block_requests(self) -> None:
        """Ask Redis for blocks as long as there are any: sessions wait for them."""
        while (request := self._backlog.blocks.take_request(MAX_KEYS)) is not None:
            arguments = block_arguments(request, self.registration.identity, self._backlog.fence_life)
            reply = await self._client.run(scripts.BLOCK, arguments)
            if reply[0] == scripts.REJOIN:
                await self.registration.join(self._client)
                return
            self._backlog.confirm_blocks(request)

    async def _send(self, batch: Batch) -> None:
        try:
            reply, sent_ns = await self._apply(batch, out_of_memory=False)
        except ResponseError as error:
            if not is_out_of_memory(error):
                raise
            self._counts.redis_errors += 1
            reply, sent_ns = await self._apply(batch, out_of_memory=True)
        if reply[0] == scripts.REJOIN:
            self._backlog.batches.put_back(batch, outcome_unknown=False)
            await self.registration.join(self._client)
            return
        _, seq, epoch, clock_ms, outcomes, scans = reply
        self.registration.heard(seq, clock_ms, sent_ns)
        self._backlog.batches.confirm(batch, seq, outcomes, scans)
        self.registration.enter(epoch)

    async def _apply(self, batch: Batch, *, out_of_memory: bool) -> tuple[Any, int]:
        """Redis's reply to ``batch``, and when that was sent."""
        sent_ns = time.monotonic_ns()
        arguments = apply_arguments(
            batch,
            self.registration.identity,
            self.registration.redis_clock_ms(sent_ns),
            self._backlog.fence_life,
            out_of_memory=out_of_memory,
        )
        return await self._client.run(scripts.APPLY, arguments), sent_ns

    async def _scan_slice(self) -> None:
        """Look at one more slice of Redis's keys for those of the rules being flushed."""
        flushes = self._backlog.flushes
        if self._scan is None:
            self._scan = Scan(flushes.start_scan())
        scan = self._scan
        cursor, keys = await self._client.call(b"SCAN", scan.cursor, b"MATCH", scan.pattern, b"COUNT", SCAN_COUNT)
        owned = scan.owned(keys)
        if owned:
            await self._client.call(b"UNLINK", *owned)
        scan.cursor = int(cursor)
        if scan.cursor == 0:
            if flushes.scanned_blocks:
                await self._client.run(scripts.SCANNED, scanned_arguments(flushes.scanned_blocks))
            self._scan = None
            flushes.end_scan(complete=True)

    async def _leave(self) -> None:
        """Nothing is left to be sent: remove the registration, if that can be done now."""
        if self.connected:
            try:
                await self.registration.leave(self._client)
            except Exception as error:  # noqa: BLE001 - the worker ends; its tables are flushed by the next one
                if is_expected(error):
                    self._log("warning", "could not take leave of redis", error=describe(error))
                else:
                    self._faults.report(error)
        self._set_connected(False)
