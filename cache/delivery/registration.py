"""A worker's registration in Redis, and what it is told there: the counter, the epoch, the clock, who died.

docs/ordering.md, "Time" and "Failures", says what follows from each.
"""

from __future__ import annotations

import time
from secrets import token_hex
from typing import TYPE_CHECKING, Protocol

from cache.delivery import scripts
from cache.delivery.faults import NameTakenError
from cache.delivery.packing import Identity, join_arguments

if TYPE_CHECKING:
    from cache.delivery.backlog import Backlog
    from cache.delivery.client import RedisClient


class Log(Protocol):
    """Writes a line of the log: level name, event, facts."""

    def __call__(self, level: str, event: str, /, **facts: object) -> None: ...


class Registration:
    """Registers the worker ``worker``, whose changes are in ``backlog``, and keeps it registered.

    ``lease`` and ``heartbeat`` are in seconds: after how long a silent worker counts as dead, and how often this one
    calls at least.
    """

    def __init__(self, backlog: Backlog, worker: str, *, lease: float, heartbeat: float, log: Log) -> None:
        self.worker = worker
        self.token = token_hex(8)
        """Tells this process from others of the same name."""
        self.due = 0.0
        """When to join again at the latest; ``time.monotonic()``."""
        self._backlog = backlog
        self._lease = lease
        self._heartbeat = heartbeat
        self._log = log
        self._registered = False
        self._seen = 0
        """The counter value that Redis told last."""
        self._epoch = 0
        self._clock_offset_ms: int | None = None
        """Redis's clock less ``time.monotonic()``."""

    @property
    def identity(self) -> Identity:
        """What a script is told of this worker."""
        return Identity(self.worker.encode(), self.token.encode(), self._seen)

    def redis_clock_ms(self, at_ns: int) -> int:
        """What Redis's clock shows at ``at_ns`` (``time.monotonic_ns()``); it has been heard before."""
        assert self._clock_offset_ms is not None, "Redis has not told its clock yet"
        return at_ns // 1_000_000 + self._clock_offset_ms

    async def join(self, client: RedisClient) -> None:
        """Register, or say that this worker lives, and do what the answer calls for."""
        sent_ns = time.monotonic_ns()
        arguments = join_arguments(
            self.identity,
            registered=self._registered,
            run_id=client.run_id,
            lease_ms=int(self._lease * 1000),
            fence_life=self._backlog.fence_life,
            rules=self._backlog.rules,
        )
        reply = await client.run(scripts.JOIN, arguments)
        if reply[0] == scripts.REJOIN:
            self._take_another_name()
            raise NameTakenError("another worker goes by this one's name")
        _, seq, epoch, clock_ms, changed, orphans = reply
        self.due = time.monotonic() + self._heartbeat
        first = not self._registered
        self._registered = True
        self._note(seq, clock_ms, sent_ns)
        # Tables of a dead worker: its last statements may still be committed.
        dead = [label.decode() for label in orphans]
        if dead:
            self._log("warning", "a worker died: flushing its tables", tables=dead)
            self._backlog.flush(dead, may_commit_later=True)
        self._backlog.flush(label.decode() for label in changed)
        self.enter(epoch, first=first)
        self._backlog.note_seq(seq)

    def _take_another_name(self) -> None:
        """Another process took this worker's place while it lives: go on beside it under a name of its own."""
        self._log("error", "another worker goes by this one's name", worker=self.worker)
        self.worker = f"{self.worker}#{token_hex(4)}"
        self._registered = False

    def heard(self, seq: int, clock_ms: int, sent_ns: int) -> None:
        """Note Redis's counter and clock in the reply to a batch that was sent at ``sent_ns``."""
        self._note(seq, clock_ms, sent_ns)
        self._backlog.note_seq(seq)

    def _note(self, seq: int, clock_ms: int, sent_ns: int) -> None:
        self._seen = seq
        now_ns = time.monotonic_ns()
        # Redis read its clock between the two instants. Taking the later one can only make it look slow, never fast.
        offset = clock_ms - now_ns // 1_000_000
        known = self._clock_offset_ms
        if known is not None and offset + (now_ns - sent_ns) // 1_000_000 - known > self._backlog.fence_life // 12:
            self._log("warning", "clocks jumped: statements under way will not fill")
            self._backlog.distrust_fences()
        self._clock_offset_ms = offset

    def enter(self, epoch: int, *, first: bool = False) -> None:
        """Redis is in ``epoch``. If that is another than this worker knew, all tables are flushed."""
        known, self._epoch = self._epoch, epoch
        if epoch != known and (known or not first):
            self._backlog.counts.epochs += 1
            self._log("warning", "redis lost what it knew: flushing all tables", epoch=epoch)
            self._backlog.begin_epoch()

    async def leave(self, client: RedisClient) -> None:
        """Remove the registration: nothing is left to be sent."""
        await client.run(scripts.LEAVE, [0, self.worker.encode(), self.token.encode()])
