"""``before_commit``: the keys a session is about to write are removed from Redis before the server is asked to commit.

With it a reader of Redis never sees the old value once the writer's commit has been acknowledged. The relay shows each
chunk of the client's here before it forwards it, and waits until Redis has confirmed the removal, for at most
``CONFIRM_TIMEOUT`` seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cache.sql.plans import Command
from protocol import codes

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from cache.capture.outcomes import Execution, Outcomes
    from cache.changes import Change
    from cache.counts import Counts
    from cache.delivery.blocks import Block
    from proxy.session.replies import Replies

    class Blocking(Protocol):
        """What a gate needs of the backlog."""

        def block(self, changes: Iterable[Change]) -> Block: ...

        def release(self, block: Block) -> None: ...


CONFIRM_TIMEOUT = 1.0
"""Seconds Redis has to confirm; after that the chunk is forwarded without."""

_COMMITS = frozenset({Command.COMMIT, Command.COMMIT_PREPARED})


class CommitGate:
    """The blocks of one session: keys that stay absent from before a commit is forwarded until its outcome is known."""

    __slots__ = ("_backlog", "_blocks", "_counts", "_outcomes", "_replies")

    def __init__(self, backlog: Blocking, counts: Counts, outcomes: Outcomes, replies: Replies) -> None:
        self._backlog = backlog
        self._counts = counts
        self._outcomes = outcomes
        self._replies = replies
        self._blocks: list[Block] = []

    def before_forwarding(self) -> Coroutine[object, object, None] | None:
        """What to await before the chunk that was just noted is forwarded; None if it cannot commit a change."""
        outstanding = self._replies.outstanding()
        if not outstanding or not self._may_commit(outstanding):
            return None
        changes = self._outcomes.possible_changes(outstanding)
        if not changes:
            return None
        block = self._backlog.block(changes)
        self._blocks.append(block)
        return self._wait(block)

    def _may_commit(self, outstanding: Sequence[Execution]) -> bool:
        """Outside a transaction block every statement does; within one, COMMIT does, and what could not be read may."""
        if self._replies.status == codes.IDLE:
            return True
        return any(execution.plan.command in _COMMITS or execution.plan.whole for execution in outstanding)

    async def _wait(self, block: Block) -> None:
        if not await block.wait(CONFIRM_TIMEOUT):
            self._counts.unconfirmed += 1

    def release(self) -> None:
        """Lift all blocks: nothing is outstanding any more, and what became true is in the backlog."""
        for block in self._blocks:
            self._backlog.release(block)
        self._blocks.clear()
