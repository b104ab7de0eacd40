"""Keys and rules that stay absent from Redis until the outcome of a write that is not yet sent to PostgreSQL is known.

A block is put on Redis before the write's commit is forwarded: the keys are removed there, and their fences refuse
every value until the block is released, together with the write's outcome or after it. docs/ordering.md, "Blocks".
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import islice
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence


class Block:
    """What one session is about to change. Made by ``Backlog.block``, ended by ``Backlog.release``."""

    __slots__ = (
        "answered",
        "confirmed",
        "keys",
        "keys_requested",
        "labels",
        "name",
        "needs_scan",
        "released",
        "releases_left",
        "requested_ns",
        "sent",
    )

    def __init__(self, name: str, keys: dict[bytes, str], labels: tuple[str, ...]) -> None:
        self.confirmed = False
        """Redis has said that every key is gone and will not come back before ``release``."""
        self.released = False
        self.name = name
        """No two blocks of a Redis have the same."""
        self.keys = keys
        """Redis keys, each with its rule's label."""
        self.labels = labels
        """Rules that are blocked as a whole."""
        # The rest is for Blocks to keep.
        self.answered = asyncio.Event()
        """There is nothing to wait for any more: confirmed, released, or Redis is out of reach."""
        self.sent = False
        """Redis may know of it."""
        self.keys_requested = 0
        """How many of ``keys``, in their order, Redis has blocked."""
        self.requested_ns = 0
        """When Redis was last asked for it; ``time.monotonic_ns()``."""
        self.needs_scan = False
        """The keys of its rules are still to be looked for."""
        self.releases_left = 0
        """Of a released block: keys and rules whose release Redis has not confirmed."""

    async def wait(self, seconds: float) -> bool:
        """Wait for Redis to confirm the block. False: ``seconds`` ran out, or Redis cannot be reached.

        Raises nothing, unless the task that waits is cancelled. The block stays, whatever this says.
        """
        if not self.answered.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self.answered.wait()
            except TimeoutError:
                pass
        return self.confirmed


class Release(NamedTuple):
    """A key, or a whole rule, that a released block need not keep absent any more."""

    block: Block
    key: bytes
    """Empty for a whole rule."""
    label: str


@dataclass(slots=True, eq=False)
class BlockRequest:
    """What Redis is asked to block in one step: keys and rules, each with the block it is for."""

    keys: list[tuple[bytes, Block]]
    labels: list[tuple[str, Block]]
    progress: list[tuple[Block, int]]
    """How many keys of each block will have been requested after this step."""


class Blocks:
    """The blocks of one worker: those that Redis is to be asked for, keeps, or is to release.

    Redis drops a block that is not requested again for ``fence_life`` milliseconds. Not thread-safe.
    """

    def __init__(self, fence_life: int) -> None:
        self._fence_life = fence_life
        self._token = token_hex(6)
        self._number = 0
        self._open: dict[Block, None] = {}
        """All that Redis knows, may know or is to know."""
        self._to_request: dict[Block, None] = {}
        self._to_scan: list[Block] = []
        """Those whose rules' keys the next scan looks for."""
        self._scanning: list[Block] = []
        """Those whose rules' keys the scan that is under way looks for."""
        self._releases: dict[Release, None] = {}
        self._releases_in_flight: tuple[Release, ...] = ()
        self._reachable = False

    @property
    def requested(self) -> bool:
        """Whether there is something to ask Redis for: sessions wait for it."""
        return bool(self._to_request)

    @property
    def waiting(self) -> int:
        """Blocks and releases that could be sent now."""
        return len(self._to_request) + len(self._releases)

    @property
    def pending(self) -> int:
        """Blocks and releases that Redis has not confirmed."""
        return len(self._to_request) + len(self._releases) + len(self._releases_in_flight)

    # What sessions do.

    def add(self, keys: dict[bytes, str], labels: Sequence[str]) -> Block:
        """A new block of these keys, each with its rule's label, and of these rules."""
        self._number += 1
        block = Block(f"{self._token}.{self._number}", keys, tuple(labels))
        if keys or labels:
            self._open[block] = None
            self._to_request[block] = None
            if not self._reachable:
                block.answered.set()
        else:
            block.confirmed = True
            block.answered.set()
        return block

    def release(self, block: Block) -> None:
        """The outcome is in the backlog, or there is none. Harmless when repeated."""
        if block.released:
            return
        block.released = True
        block.answered.set()
        self._to_request.pop(block, None)
        if not block.sent:
            self._open.pop(block, None)
            return
        releases = [Release(block, key, label) for key, label in block.keys.items()]
        releases += [Release(block, b"", label) for label in block.labels]
        block.releases_left = len(releases)
        self._releases.update(dict.fromkeys(releases))

    # What the writer does.

    def set_reachable(self, reachable: bool) -> None:
        """Whether Redis answers. While it does not, sessions do not wait for their blocks."""
        self._reachable = reachable
        if not reachable:
            for block in self._open:
                block.answered.set()

    def take_request(self, max_keys: int) -> BlockRequest | None:
        """What to ask Redis for next, before anything else is sent; None for nothing. The same until ``confirm``."""
        if not self._to_request:
            return None
        request = BlockRequest([], [], [])
        now = time.monotonic_ns()
        for block in self._to_request:
            room = max_keys - len(request.keys)
            if room <= 0:
                break
            block.sent = True
            block.requested_ns = now
            if block.keys_requested == 0:
                request.labels += [(label, block) for label in block.labels]
            part = list(islice(block.keys, block.keys_requested, block.keys_requested + room))
            request.keys += [(key, block) for key in part]
            request.progress.append((block, block.keys_requested + len(part)))
        return request

    def confirm(self, request: BlockRequest, known: Container[str]) -> dict[str, Block]:
        """Redis did as it was asked. Returns those of the ``known`` rules whose keys are to be looked for now."""
        to_scan: dict[str, Block] = {}
        for label, block in request.labels:
            if label in known and not block.released and not block.confirmed:
                to_scan[label] = block
                if not block.needs_scan:
                    block.needs_scan = True
                    self._to_scan.append(block)
        for block, keys_requested in request.progress:
            block.keys_requested = keys_requested
            if keys_requested == len(block.keys) and not block.released:
                del self._to_request[block]
                self._confirm_if_complete(block)
        return to_scan

    def _confirm_if_complete(self, block: Block) -> None:
        """Confirm the block if nothing of it is left to be requested or looked for."""
        if not (block.needs_scan or block.released or block in self._to_request):
            block.confirmed = True
            block.answered.set()

    def start_scan(self) -> None:
        """A scan begins that looks for the keys of all rules that wait for one."""
        self._scanning += self._to_scan
        self._to_scan = []

    def end_scan(self, *, complete: bool) -> None:
        """``complete``: the keys are gone. Otherwise the next scan looks for them again."""
        if complete:
            for block in self._scanning:
                block.needs_scan = False
                self._confirm_if_complete(block)
        else:
            self._to_scan += self._scanning
        self._scanning = []

    def renew(self) -> None:
        """Request again what Redis would drop soon; to be called every few seconds."""
        due = time.monotonic_ns() - self._fence_life * 1_000_000 // 3
        for block in self._open:
            if block.confirmed and not block.released and block.requested_ns < due:
                block.keys_requested = 0
                self._to_request[block] = None

    def request_all_again(self) -> None:
        """Redis may have forgotten every block."""
        self._to_scan.clear()
        self._scanning.clear()
        for block in self._open:
            if not block.released:
                block.needs_scan = False
                block.keys_requested = 0
                self._to_request[block] = None

    def take_releases(self, max_keys: int, outcome_waits: Callable[[Release], bool]) -> tuple[Release, ...]:
        """Releases for the batch that is being made, but those whose outcome goes with a later one."""
        releases: list[Release] = []
        for release in self._releases:
            if len(releases) >= max_keys:
                break
            if not outcome_waits(release):
                releases.append(release)
        for release in releases:
            del self._releases[release]
        self._releases_in_flight = tuple(releases)
        return self._releases_in_flight

    def released(self) -> None:
        """Redis applied the batch that the last releases went with."""
        for release in self._releases_in_flight:
            release.block.releases_left -= 1
            if not release.block.releases_left:
                del self._open[release.block]
        self._releases_in_flight = ()

    def put_back_releases(self) -> None:
        """Redis may not have applied that batch."""
        self._releases.update(dict.fromkeys(self._releases_in_flight))
        self._releases_in_flight = ()
