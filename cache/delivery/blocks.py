"""Keys and rules that stay absent from Redis until the outcome of a write that is not yet forwarded is known.

A block is put on Redis before the write's commit is forwarded: the keys are removed there, and their fences refuse
every value until the block is lifted, which happens together with the write's outcome or after it. docs/ordering.md
says why that suffices.
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
        "asked",
        "asked_at",
        "confirmed",
        "holder",
        "keys",
        "labels",
        "left",
        "over",
        "released",
        "scans",
        "sent",
    )

    def __init__(self, holder: str, keys: dict[bytes, str], labels: tuple[str, ...]) -> None:
        self.confirmed = False
        """Redis has said that every key is gone and will not come back before ``release``."""
        self.released = False
        self.holder = holder
        """Names the block among all that a Redis holds."""
        self.keys = keys
        """Redis keys, each with its rule's label."""
        self.labels = labels
        """Rules that are blocked as a whole."""
        # The rest is for Blocks to keep.
        self.asked = 0
        self.asked_at = 0
        self.scans = False
        self.sent = False
        self.left = 0
        self.over = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait for Redis to confirm the block. False: ``seconds`` ran out, or Redis cannot be reached.

        Raises nothing, unless the task that waits is cancelled. The block stays, whatever this says.
        """
        if not self.over.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self.over.wait()
            except TimeoutError:
                pass
        return self.confirmed


class Lift(NamedTuple):
    """A key, or a whole rule, that a released block need not keep absent any more."""

    block: Block
    key: bytes
    """Empty for a whole rule."""
    label: str


@dataclass(slots=True, eq=False)
class Asking:
    """What Redis is asked for in one step: keys and rules, each with the block it is for."""

    keys: list[tuple[bytes, Block]]
    labels: list[tuple[str, Block]]
    parts: list[tuple[Block, int]]
    """How many keys of each block will have been asked for after this step."""


class Blocks:
    """The blocks of one worker that Redis is asked for, keeps, or is to lift.

    Redis keeps one that is not asked for again for ``life`` milliseconds. Not thread-safe.
    """

    def __init__(self, life: int) -> None:
        self._life = life
        self._token = token_hex(6)
        self._number = 0
        self._open: dict[Block, None] = {}
        """All that Redis knows, may know or is to know."""
        self._asking: dict[Block, None] = {}
        self._scans: list[Block] = []
        """Those whose rules' keys are looked for by a scan that is still to begin."""
        self._scanning: list[Block] = []
        self._lifts: dict[Lift, None] = {}
        self._flying: tuple[Lift, ...] = ()
        self._up = False

    @property
    def asking(self) -> bool:
        return bool(self._asking)

    @property
    def waiting(self) -> int:
        """What could be sent now."""
        return len(self._asking) + len(self._lifts)

    @property
    def pending(self) -> int:
        """Blocks and lifts that Redis has not confirmed."""
        return len(self._asking) + len(self._lifts) + len(self._flying)

    # What sessions do.

    def add(self, keys: dict[bytes, str], labels: Sequence[str]) -> Block:
        self._number += 1
        block = Block(f"{self._token}.{self._number}", keys, tuple(labels))
        if keys or labels:
            self._open[block] = None
            self._asking[block] = None
            if not self._up:
                block.over.set()
        else:
            block.confirmed = True
            block.over.set()
        return block

    def release(self, block: Block) -> None:
        """The outcome is in the backlog, or there is none. Harmless when repeated."""
        if block.released:
            return
        block.released = True
        block.over.set()
        self._asking.pop(block, None)
        if not block.sent:
            self._open.pop(block, None)
            return
        lifts = [Lift(block, key, label) for key, label in block.keys.items()]
        lifts += [Lift(block, b"", label) for label in block.labels]
        block.left = len(lifts)
        self._lifts.update(dict.fromkeys(lifts))

    # What the writer does, through the backlog.

    def reachable(self, *, up: bool) -> None:
        """While Redis cannot be reached nobody waits for a block."""
        self._up = up
        if not up:
            for block in self._open:
                block.over.set()

    def take(self, max_keys: int) -> Asking:
        """What to ask Redis for next. Stays asked for until ``confirm``."""
        asking = Asking([], [], [])
        now = time.monotonic_ns()
        for block in self._asking:
            room = max_keys - len(asking.keys)
            if room <= 0:
                break
            block.sent = True
            block.asked_at = now
            if block.asked == 0:
                asking.labels += [(label, block) for label in block.labels]
            part = list(islice(block.keys, block.asked, block.asked + room))
            asking.keys += [(key, block) for key in part]
            asking.parts.append((block, block.asked + len(part)))
        return asking

    def confirm(self, asking: Asking, known: Container[str]) -> dict[str, Block]:
        """Redis did as it was asked. Returns those of the ``known`` rules whose keys are to be looked for now."""
        scans: dict[str, Block] = {}
        for label, block in asking.labels:
            if label in known and not block.released and not block.confirmed:
                scans[label] = block
                if not block.scans:
                    block.scans = True
                    self._scans.append(block)
        for block, asked in asking.parts:
            block.asked = asked
            if asked == len(block.keys) and not block.released:
                del self._asking[block]
                self._settle(block)
        return scans

    def _settle(self, block: Block) -> None:
        """Confirm it if nothing of it is left to be asked for or looked for."""
        if not (block.scans or block.released or block in self._asking):
            block.confirmed = True
            block.over.set()

    def start_scan(self) -> None:
        self._scanning += self._scans
        self._scans = []

    def end_scan(self, *, complete: bool) -> None:
        if complete:
            for block in self._scanning:
                block.scans = False
                self._settle(block)
        else:
            self._scans += self._scanning
        self._scanning = []

    def renew(self) -> None:
        """Ask again for what Redis would let go of soon."""
        due = time.monotonic_ns() - self._life * 1_000_000 // 3
        for block in self._open:
            if block.confirmed and not block.released and block.asked_at < due:
                block.asked = 0
                self._asking[block] = None

    def ask_again(self) -> None:
        """Redis may have forgotten all it was asked for."""
        self._scans.clear()
        self._scanning.clear()
        for block in self._open:
            if not block.released:
                block.scans = False
                block.asked = 0
                self._asking[block] = None

    def lift(self, max_lifts: int, outcome_waits: Callable[[Lift], bool]) -> tuple[Lift, ...]:
        """Lifts to go with the batch that is being made, but those whose outcome goes with a later one."""
        lifts: list[Lift] = []
        for lift in self._lifts:
            if len(lifts) >= max_lifts:
                break
            if not outcome_waits(lift):
                lifts.append(lift)
        for lift in lifts:
            del self._lifts[lift]
        self._flying = tuple(lifts)
        return self._flying

    def lifted(self) -> None:
        """Redis applied the batch the last lifts went with."""
        for lift in self._flying:
            lift.block.left -= 1
            if not lift.block.left:
                del self._open[lift.block]
        self._flying = ()

    def put_back(self) -> None:
        """Redis may not have applied it."""
        self._lifts.update(dict.fromkeys(self._flying))
        self._flying = ()
