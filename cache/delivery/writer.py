"""The one task of a worker that speaks to Redis: sends the backlog's batches, one at a time, over one connection.

Nothing waits for it. It survives everything Redis does: whatever a batch's fate, its keys end up right or absent.
docs/ordering.md says which rule answers which failure.
"""

from __future__ import annotations

import asyncio
import random
import time
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from cache.delivery import scripts
from cache.delivery.connections import MEMORY, connector, facts_of, pack, problems, undone, words
from cache.delivery.queues import definition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cache.counts import ErrorReport
    from cache.delivery.backlog import Backlog
    from cache.delivery.blocks import Lift
    from cache.delivery.connections import Link
    from cache.delivery.queues import Batch, Part
    from cache.rules import TableRule

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


class WrongRedisError(RedisError):
    """What answers cannot be worked with, now at least; says why."""


class Writer:
    """Sends ``backlog`` to the Redis at ``url``: redis://, rediss://, unix:// or redis+sentinel://.

    ``worker`` names this worker among all that share the Redis, and must be the same when it is started again in its
    place. Times are in seconds. ``on_event`` gets a line for the log: level name, event, facts. ``connected`` is true
    while this worker is registered there, not as soon as the connection is open.
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
        self._backlog = backlog
        self._counts = backlog.counts
        self._open = connector(url, timeout)
        self._worker = worker
        self._token = token_hex(8)
        self._flush_interval = flush_interval
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._lease = lease
        self._max_delay = max_delay
        self._on_event = on_event
        self._on_internal_error = on_internal_error
        self._connection: Link | None = None
        self._run_id = b""
        self._registered = False
        self._seen = 0
        self._epoch = 0
        self._offset: int | None = None
        """Redis's clock less ours, ms."""
        self._next_heartbeat = 0.0
        self._ever_connected = False
        self._scan: _Scan | None = None
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
                    # Beside what Redis and sockets raise: uvloop answers a write to a connection that was reset with
                    # RuntimeError.
                    failures += 1
                    await self._lost(error, first=failures == 1)
                    await self._pause(failures)
            await self._leave()
        finally:
            self._running = False
            await self._close()
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
        connection = self._open()
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
                await connection.send_packed_command(pack((b"INFO",)), check_health=False)
                found = problems(facts_of(await connection.read_response()))
                if all(problem.startswith("maxmemory-policy") for problem in found):
                    await connection.send_packed_command(pack((b"EVAL", scripts.PROBE.text, 0)), check_health=False)
                    try:
                        await connection.read_response()
                    except ResponseError as error:
                        found.append(f"Redis refuses what Rowtap needs: {words(error)}")
                return found
        except (RedisError, OSError, TimeoutError, EOFError) as error:
            return [f"Redis does not answer: {words(error)}"]
        finally:
            await connection.disconnect(nowait=True)

    def reconfigured(self) -> None:
        """The backlog's rules changed: tell Redis at the next opportunity."""
        self._next_heartbeat = 0.0
        self._backlog.wake()

    # The connection.

    async def _connect(self) -> None:
        connection = self._open()
        self._connection = connection
        async with asyncio.timeout(self._timeout):
            await connection.connect()
            try:
                facts = facts_of(await self._call(b"INFO", b"server"))
            except ResponseError:
                facts = {}  # Not permitted: the registration still tells whether Redis is the one we knew.
        self._run_id = facts.get("run_id", "").encode()
        await self._join()
        if self._ever_connected:
            self._counts.redis_reconnects += 1
        self._ever_connected = True
        self._log("info", "redis connected", version=facts.get("valkey_version") or facts.get("redis_version"))
        self._state(connected=True)

    async def _lost(self, error: BaseException, *, first: bool) -> None:
        self._counts.redis_errors += 1
        self._log("warning" if first else "debug", "redis lost", error=words(error))
        self._state(connected=False)
        if self._scan is not None:
            self._scan = None
            self._backlog.end_scan(complete=False)
        await self._close()

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        stream = getattr(connection, "_writer", None)
        if stream is not None:
            # At once, and without what is still unsent: it must not reach a Redis that was only slow.
            stream.transport.abort()
        await connection.disconnect(nowait=True)

    async def _pause(self, failures: int) -> None:
        delay = min(self._max_delay, 0.05 * 2 ** min(failures, 12)) * (0.5 + random.random() / 2)  # noqa: S311 - jitter
        if not self._ending:
            await asyncio.sleep(delay)
        else:
            await asyncio.sleep(min(delay, 0.1))

    def _state(self, *, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            self._backlog.reachable(up=connected)

    def _log(self, level: str, event: str, **facts: object) -> None:
        if self._on_event is not None:
            self._on_event(level, event, facts)

    async def _call(self, *command: bytes | int) -> Any:
        """One command, one reply. Whatever interrupts it leaves the connection unusable: the caller drops it."""
        connection = self._connection
        if connection is None or not connection.is_connected:
            raise ConnectionResetError("connection is gone")
        async with asyncio.timeout(self._timeout):
            await connection.send_packed_command(pack(command), check_health=False)
            return await connection.read_response(disconnect_on_error=False)

    async def _script(self, script: scripts.Script, *arguments: bytes | int) -> Any:
        """``arguments`` begin with the number of keys."""
        try:
            return await self._call(b"EVALSHA", script.digest, *arguments)
        except NoScriptError:
            return await self._call(b"EVAL", script.text, *arguments)

    # Registration, epochs and clocks.

    async def _join(self) -> None:
        rules = self._backlog.rules
        sent = time.monotonic_ns()
        arguments: list[bytes | int] = []
        for rule in rules:
            arguments += (rule.label.encode(), definition(rule).encode())
        reply = await self._script(
            scripts.JOIN,
            0,
            self._worker.encode(),
            self._token.encode(),
            self._seen,
            int(self._registered),
            self._run_id,
            int(self._lease * 1000),
            self._backlog.fence_life,
            *arguments,
        )
        if reply[0] == scripts.REJOIN:
            self._rename()
            raise WrongRedisError("another worker goes by this one's name")
        _, seq, epoch, clock, changed, orphans = reply
        self._next_heartbeat = time.monotonic() + self._heartbeat
        first = not self._registered
        self._registered = True
        self._heard(seq, clock, sent)
        # A table of a dead worker: its last statements may still commit.
        dead = [label.decode() for label in orphans]
        if dead:
            self._log("warning", "a worker died: flushing its tables", tables=dead)
            self._backlog.flush(dead, may_commit_later=True)
        if changed:
            self._backlog.flush(label.decode() for label in changed)
        self._enter(epoch, first=first)
        self._backlog.seq = max(self._backlog.seq, seq)

    def _rename(self) -> None:
        """Another process took this worker's place while it lives: go on beside it under a name of its own."""
        self._log("error", "another worker goes by this one's name", worker=self._worker)
        self._worker = f"{self._worker}#{token_hex(4)}"
        self._registered = False

    def _enter(self, epoch: int, *, first: bool = False) -> None:
        if epoch == self._epoch:
            return
        known = self._epoch
        self._epoch = epoch
        if not first or known:
            self._counts.epochs += 1
            self._log("warning", "redis lost what it knew: flushing all tables", epoch=epoch)
            self._backlog.renew()

    def _heard(self, seq: int, clock: int, sent: int) -> None:
        """Note what a reply says of Redis's counter and clock; ``sent`` is when its command was, monotonic ns."""
        self._seen = seq
        now = time.monotonic_ns()
        # The reply's clock reading lies between the two; the later end can only make ours look slow, never fast.
        offset = clock - now // 1_000_000
        if (
            self._offset is not None
            and offset + (now - sent) // 1_000_000 - self._offset > self._backlog.fence_life // 12
        ):
            self._log("warning", "clocks jumped: statements under way will not fill")
            self._backlog.forget()
        self._offset = offset

    # Work.

    async def _serve(self) -> None:
        backlog = self._backlog
        while not self._finished():
            if self._scan is None and not backlog.scan_waits:
                await backlog.wait(max(self._next_heartbeat - time.monotonic(), 0))
                await self._send_blocks()
                if self._flush_interval and 0 < backlog.waiting < MAX_KEYS:
                    await backlog.linger(self._flush_interval)
            if time.monotonic() >= self._next_heartbeat:
                await self._join()
                backlog.renew_blocks()
            await self._send_blocks()
            batch = backlog.take(MAX_KEYS, MAX_BYTES)
            if batch is not None:
                await self._send(batch)
            if self._scan is not None or backlog.scan_waits:
                await self._scan_slice()

    def _finished(self) -> bool:
        return self._ending and self._backlog.pending == 0

    async def _send_blocks(self) -> None:
        """Ask Redis for blocks as long as there are any: sessions wait for them."""
        while (asking := self._backlog.take_blocks(MAX_KEYS)) is not None:
            arguments: list[bytes | int] = [len(asking.keys)]
            arguments += [key for key, _ in asking.keys]
            arguments += (self._worker.encode(), self._token.encode(), self._seen, self._backlog.fence_life)
            arguments.append(len(asking.labels))
            for label, block in asking.labels:
                arguments += (label.encode(), block.holder.encode())
            arguments += [block.holder.encode() for _, block in asking.keys]
            reply = await self._script(scripts.BLOCK, *arguments)
            if reply[0] == scripts.REJOIN:
                await self._join()
                return
            self._backlog.confirm_blocks(asking)

    async def _send(self, batch: Batch) -> None:
        try:
            try:
                reply, sent = await self._apply(batch, frugal=False)
            except ResponseError as error:
                if MEMORY not in str(error):
                    raise
                self._counts.redis_errors += 1
                reply, sent = await self._apply(batch, frugal=True)
            if reply[0] == scripts.REJOIN:
                self._backlog.put_back(batch, unknown=False)
                await self._join()
                return
            _, seq, epoch, clock, outcomes, scans = reply
        except BaseException as error:
            if self._backlog.flying is batch:
                self._backlog.put_back(batch, unknown=not undone(error))
            raise
        self._heard(seq, clock, sent)
        self._backlog.confirm(batch, seq, outcomes, scans)
        self._enter(epoch)

    async def _apply(self, batch: Batch, *, frugal: bool) -> tuple[Any, int]:
        """``frugal``: Redis has no memory to spare, so values are not written and writes only remove."""
        sent = time.monotonic_ns()
        assert self._offset is not None
        changes = batch.changes
        labels: dict[str, int] = {}
        for part in batch.parts:
            labels.setdefault(part.lane.rule.label, len(labels) + 1)
        for lane, _ in batch.flushes:
            labels.setdefault(lane.rule.label, len(labels) + 1)
        keys = [change.key for change in changes]
        lifts = _number(batch.lifts, keys, labels) if batch.lifts else []
        arguments: list[bytes | int] = [
            len(keys),
            *keys,
            self._worker.encode(),
            self._token.encode(),
            self._seen,
            sent // 1_000_000 + self._offset,
            int(frugal),
            int(batch.writes),
            self._backlog.fence_life,
            len(changes),
            len(labels),
            len(batch.lifts),
            len(batch.flushes),
        ]
        arguments += [label.encode() for label in labels]
        arguments += lifts
        for lane, may_commit_later in batch.flushes:
            arguments += (labels[lane.rule.label], self._backlog.fence_life if may_commit_later else 0)
        for part in batch.parts:
            number = b"%d" % labels[part.lane.rule.label]
            if frugal and part.fills:
                arguments += (b"F", number, 0, 0, b"") * len(part.changes)  # Dated so that they are refused.
            else:
                self._pack(part, number, arguments, frugal=frugal)
        return await self._script(scripts.APPLY, *arguments), sent

    def _pack(self, part: Part, rule: bytes, arguments: list[bytes | int], *, frugal: bool) -> None:
        plain, fields = (b"F", b"f") if part.fills else (b"S", b"s")
        life = part.lane.rule.ttl or 0
        jitter = part.lane.rule.ttl_jitter if life else 0
        ttl: bytes | int = b"%d" % life
        for change in part.changes:
            value = change.value
            if jitter:
                ttl = max(1, int(life * (1 - jitter * random.random())))  # noqa: S311 - spreads expiry, no secret
            if value is None or frugal:
                arguments += (b"E", rule, change.seq, self._backlog.fence_life if change.may_commit_later else 0)
            elif type(value) is bytes:
                arguments += (plain, rule, change.seq, ttl, value)
            elif isinstance(value, dict):
                if change.partial:
                    arguments += (b"p", rule, change.seq, len(value))
                else:
                    arguments += (fields, rule, change.seq, ttl, len(value))
                for pair in value.items():
                    arguments += pair
                if change.partial:
                    arguments.append(len(change.removed))
                    arguments += change.removed

    async def _scan_slice(self) -> None:
        """Look at one more slice of Redis's keys for those of the rules being flushed."""
        if self._scan is None:
            self._scan = _Scan(self._backlog.start_scan())
        scan = self._scan
        cursor, keys = await self._call(b"SCAN", scan.cursor, b"MATCH", scan.pattern, b"COUNT", SCAN_COUNT)
        owned = [key for key in keys if any(rule.template.owns(key) for rule in scan.rules)]
        if owned:
            await self._call(b"UNLINK", *owned)
        scan.cursor = int(cursor)
        if scan.cursor == 0:
            if blocked := self._backlog.blocked:
                await self._script(scripts.SCANNED, 0, *(fact.encode() for pair in blocked for fact in pair))
            self._scan = None
            self._backlog.end_scan(complete=True)

    async def _leave(self) -> None:
        if self._connection is not None and self.connected:
            try:
                await self._script(scripts.LEAVE, 0, self._worker.encode(), self._token.encode())
            except (RedisError, OSError, TimeoutError, EOFError) as error:
                self._log("warning", "could not take leave of redis", error=words(error))
        self._state(connected=False)


class _Scan:
    """One pass over all keys for one or more rules."""

    __slots__ = ("cursor", "pattern", "rules")

    def __init__(self, rules: tuple[TableRule, ...]) -> None:
        self.rules = rules
        self.cursor = 0
        patterns = [rule.template.pattern for rule in rules]
        if len(patterns) == 1:
            self.pattern = patterns[0]
        else:
            # Cut where any pattern stops being plain text, so that the prefix is one pattern's and all others'.
            plain = [_plain_prefix(pattern) for pattern in patterns]
            self.pattern = _common(plain) + b"*"


def _number(lifts: Iterable[Lift], keys: list[bytes], labels: dict[str, int]) -> list[bytes | int]:
    """Lifts as the script wants them; adds to ``keys`` and ``labels`` what no change is there for."""
    places = {key: place for place, key in enumerate(keys, 1)}
    arguments: list[bytes | int] = []
    for lift in lifts:
        if not lift.key:
            number = -labels.setdefault(lift.label, len(labels) + 1)
        else:
            number = places.setdefault(lift.key, len(places) + 1)
            if number > len(keys):
                keys.append(lift.key)
        arguments += (number, lift.block.holder.encode())
    return arguments


def _plain_prefix(pattern: bytes) -> bytes:
    """What a glob begins with before its first special character."""
    for i, byte in enumerate(pattern):
        if byte in b"*?[]\\":
            return pattern[:i]
    return pattern


def _common(texts: list[bytes]) -> bytes:
    first, last = min(texts), max(texts)
    for i, byte in enumerate(first):
        if last[i : i + 1] != bytes((byte,)):
            return first[:i]
    return first
