"""What is sent to Redis, as arguments of the scripts in ``lua/``. Their headers say what each argument means.

All lists begin with the number of keys, as EVALSHA wants it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from cache.delivery.queues import definition
from cache.delivery.scripts import EVICT_KEY, FILL_HASH, FILL_VALUE, STORE_HASH, STORE_VALUE, UPDATE_HASH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cache.delivery.batches import Batch, Part
    from cache.delivery.blocks import BlockRequest, Release
    from cache.rules import TableRule

Arguments = list[bytes | int]

_REFUSED_FILL = (0, 0, b"")
"""Date, TTL and value of a Fill that is only sent to be refused: no fence is as old as its date."""


class Identity(NamedTuple):
    """What every script is told of the worker that calls it."""

    worker: bytes
    token: bytes
    seen: int
    """The counter value it was last told."""


def join_arguments(
    identity: Identity, *, registered: bool, run_id: bytes, lease_ms: int, fence_life: int, rules: Iterable[TableRule]
) -> Arguments:
    """The arguments of join.lua."""
    arguments: Arguments = [0, *identity, int(registered), run_id, lease_ms, fence_life]
    for rule in rules:
        arguments += (rule.label.encode(), definition(rule).encode())
    return arguments


def block_arguments(request: BlockRequest, identity: Identity, fence_life: int) -> Arguments:
    """The arguments of block.lua."""
    arguments: Arguments = [len(request.keys)]
    arguments += [key for key, _ in request.keys]
    arguments += (*identity, fence_life, len(request.labels))
    for label, block in request.labels:
        arguments += (label.encode(), block.name.encode())
    arguments += [block.name.encode() for _, block in request.keys]
    return arguments


def scanned_arguments(scanned_blocks: Iterable[tuple[str, str]]) -> Arguments:
    """The arguments of scanned.lua, of labels and names of blocks."""
    return [0, *(text.encode() for pair in scanned_blocks for text in pair)]


def apply_arguments(
    batch: Batch, identity: Identity, sent_ms: int, fence_life: int, *, out_of_memory: bool
) -> Arguments:
    """The arguments of apply.lua. ``sent_ms`` is now, by Redis's clock.

    ``out_of_memory``: Redis has no memory to spare, so values are not written and writes only remove.
    """
    changes = batch.changes
    rules: dict[str, int] = {}
    for part in batch.parts:
        rules.setdefault(part.queue.rule.label, len(rules) + 1)
    for queue, _ in batch.flushes:
        rules.setdefault(queue.rule.label, len(rules) + 1)
    keys = [change.key for change in changes]
    releases = _numbered(batch.releases, keys, rules) if batch.releases else []
    arguments: Arguments = [
        len(keys),
        *keys,
        *identity,
        sent_ms,
        int(out_of_memory),
        int(batch.has_write),
        fence_life,
        len(changes),
        len(rules),
        len(batch.releases),
        len(batch.flushes),
    ]
    arguments += [label.encode() for label in rules]
    arguments += releases
    for queue, may_commit_later in batch.flushes:
        arguments += (rules[queue.rule.label], fence_life if may_commit_later else 0)
    for part in batch.parts:
        rule = b"%d" % rules[part.queue.rule.label]
        if out_of_memory and part.fills:
            arguments += (FILL_VALUE, rule, *_REFUSED_FILL) * len(part.changes)
        else:
            _add_changes(arguments, part, rule, fence_life, remove_only=out_of_memory)
    return arguments


def _add_changes(arguments: Arguments, part: Part, rule: bytes, fence_life: int, *, remove_only: bool) -> None:
    whole_value, whole_hash = (FILL_VALUE, FILL_HASH) if part.fills else (STORE_VALUE, STORE_HASH)
    life = part.queue.rule.ttl or 0
    jitter = part.queue.rule.ttl_jitter if life else 0
    ttl: bytes | int = b"%d" % life
    for change in part.changes:
        value = change.value
        if jitter:
            ttl = max(1, int(life * (1 - jitter * random.random())))  # noqa: S311 - spreads expiry, no secret
        if value is None or remove_only:
            arguments += (EVICT_KEY, rule, change.seq, fence_life if change.may_commit_later else 0)
        elif isinstance(value, bytes):
            arguments += (whole_value, rule, change.seq, ttl, value)
        else:
            if change.partial:
                arguments += (UPDATE_HASH, rule, change.seq, len(value))
            else:
                arguments += (whole_hash, rule, change.seq, ttl, len(value))
            for pair in value.items():
                arguments += pair
            if change.partial:
                arguments.append(len(change.removed))
                arguments += change.removed


def _numbered(releases: Iterable[Release], keys: list[bytes], rules: dict[str, int]) -> Arguments:
    """For each release, the number of its key, or of its rule and negative, and the block's name.

    Adds to ``keys`` and ``rules`` those that no change is there for.
    """
    places = {key: place for place, key in enumerate(keys, 1)}
    arguments: Arguments = []
    for release in releases:
        if not release.key:
            number = -rules.setdefault(release.label, len(rules) + 1)
        else:
            number = places.setdefault(release.key, len(places) + 1)
            if number > len(keys):
                keys.append(release.key)
        arguments += (number, release.block.name.encode())
    return arguments
