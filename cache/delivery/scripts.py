"""The Lua scripts that decide, inside Redis, what a change may still do; and the words that they share with Python.

The scripts are files in ``lua/``, each with a header that says what it is given and returns. Before a script is sent,
each line ``-- include <file>`` is replaced by that file, and the names in ``SHARED`` are defined above it. So every
name and code that both sides use is written once, here. docs/ordering.md describes the data these scripts keep.

Scripts run on Redis 6.2 and later and Valkey 7.2 and later, without modules.
"""

from __future__ import annotations

import re
from hashlib import sha1
from importlib.resources import files

STATE = b"rowtap:state"
"""The hash of all that is not a key's fence. It has no expiry, so no eviction policy takes a part of it unnoticed."""
FENCE_HASHES = b"rowtap:fences:"
FENCES = (FENCE_HASHES + b"0", FENCE_HASHES + b"1")
"""The hashes of the keys' fences: one of this generation, one of the last. They have no expiry either."""

FILLED, REFUSED, STORED, REMOVED, OVERLAPPED = b"FRSEO"
"""Outcomes of a change: value written by a Fill; Fill refused; value written; key removed; key removed, and another
write of it was newer than this one's date."""

SCAN, NO_SCAN = b"10"
"""Of a Flush: whether its keys are still to be looked for. They are not if that was done for the block that the Flush
ends, and no value was accepted since."""

REJOIN, DONE = 0, 1
"""First element of a reply: Redis does not know this worker, or not what it was told last; the script was applied."""

FILL_VALUE, STORE_VALUE, FILL_HASH, STORE_HASH, UPDATE_HASH, EVICT_KEY = b"F", b"S", b"f", b"s", b"p", b"E"
"""Operations of a batch; apply.lua has their arguments."""

SHARED: dict[str, bytes | int] = {
    "STATE": STATE,
    "FENCES": FENCE_HASHES,
    # In the hash of fences: its generation. Without it the hash is not complete.
    "WHOLE": b"rowtap:generation",
    # A key that never exists.
    "NO_SUCH_KEY": b"rowtap:none",
    # Prefixes of fields of STATE: of a rule's label the table's fence, the definition, and the last block of the rule
    # (followed by SCANNED when the keys were looked for); of a worker's name its registration, and its rules' labels.
    "TABLE_FENCE": b"t:",
    "DEFINITION": b"r:",
    "LAST_BLOCK": b"n:",
    "SCANNED": b" none",
    "WORKER": b"w:",
    "LABELS": b"l:",
    # Instead of a block's name: a block that only time ends.
    "UNOWNED": b"-",
    "REJOIN": REJOIN,
    "DONE": DONE,
    "FILLED": bytes((FILLED,)),
    "REFUSED": bytes((REFUSED,)),
    "STORED": bytes((STORED,)),
    "REMOVED": bytes((REMOVED,)),
    "OVERLAPPED": bytes((OVERLAPPED,)),
    "SCAN": bytes((SCAN,)),
    "NO_SCAN": bytes((NO_SCAN,)),
    "FILL_VALUE": FILL_VALUE,
    "STORE_VALUE": STORE_VALUE,
    "FILL_HASH": FILL_HASH,
    "STORE_HASH": STORE_HASH,
    "UPDATE_HASH": UPDATE_HASH,
    "EVICT_KEY": EVICT_KEY,
}
"""What the Lua files may call by name, and its value."""

_INCLUDE = re.compile(r"-- include (\S+)")


class Script:
    """A script as it is sent: its text, and the digest by which Redis knows it once it has it."""

    __slots__ = ("_origins", "digest", "text")

    def __init__(self, text: str, origins: tuple[str, ...] = ()) -> None:
        self.text = text.encode()
        # Not a matter of security: it is how Redis names scripts.
        self.digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()
        self._origins = origins

    def origin(self, line: int) -> str:
        """The file, and the line in it, that ``line`` of the text was taken from; Redis counts from 1."""
        return self._origins[line - 1] if 0 < line <= len(self._origins) else f"line {line}"


def load(name: str) -> Script:
    """The script in ``lua/<name>``, with the files it includes, and with the names it shares with Python defined."""
    words = " ".join(f"local {word} = {_literal(value)}" for word, value in SHARED.items())
    lines = [(words, "scripts.SHARED")]
    for line, origin in _lines(name):
        include = _INCLUDE.fullmatch(line)
        lines += _lines(include[1]) if include else [(line, origin)]
    return Script("".join(line + "\n" for line, _ in lines), tuple(origin for _, origin in lines))


def _lines(name: str) -> list[tuple[str, str]]:
    """The lines of a file in ``lua/``, each with where it stands."""
    text = (files(__package__) / "lua" / name).read_text("utf-8")
    return [(line, f"{name}:{number}") for number, line in enumerate(text.splitlines(), 1)]


def _literal(value: bytes | int) -> str:
    return f"'{value.decode()}'" if isinstance(value, bytes) else str(value)


JOIN = load("join.lua")
APPLY = load("apply.lua")
BLOCK = load("block.lua")
SCANNED = load("scanned.lua")
LEAVE = load("leave.lua")
PROBE = load("probe.lua")
