"""The state file of ``rowtap warm``: how far each table has been read, to go on from there after an interruption."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.commands.table_reader import ReadFailure, UsageError
from proxy.config.os_errors import reason_of

if TYPE_CHECKING:
    from pathlib import Path

SAVE_INTERVAL = 1.0
"""Seconds between two writes of the file."""


@dataclass(slots=True)
class TableProgress:
    """How far one rule's table has been read. The state file keeps it."""

    order: tuple[str, ...] = ()
    """The columns of ``position``."""
    position: tuple[bytes, ...] = ()
    """Of the last row whose key was looked up."""
    rows: int = 0
    """Rows up to ``position`` that have a key."""
    present: int = 0
    """Keys of these that Redis held."""
    done: bool = False


@dataclass(slots=True)
class StateFile:
    """The progress of each table by rule label, kept in a file if there is a path."""

    path: Path | None
    tables: dict[str, TableProgress] = field(default_factory=dict)
    saved_at: float = 0.0

    @classmethod
    def load(cls, path: Path | None) -> StateFile:
        """From the file, if it exists. Raises ``UsageError``."""
        state = cls(path)
        if path is None or not path.exists():
            return state
        try:
            document = json.loads(path.read_bytes())
            for label, entry in document["tables"].items():
                state.tables[label] = TableProgress(
                    order=tuple(map(str, entry["order"])),
                    position=tuple(bytes_of(text) for text in entry["place"]),
                    rows=int(entry["rows"]),
                    present=int(entry["present"]),
                    done=bool(entry["done"]),
                )
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {reason_of(error)}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path}: is no state file of rowtap warm; name another, or remove it") from None
        return state

    def save(self, *, at_once: bool = False) -> None:
        """Write the file, not more than once in ``SAVE_INTERVAL`` seconds. Raises ``ReadFailure``."""
        if self.path is None or (not at_once and time.monotonic() - self.saved_at < SAVE_INTERVAL):
            return
        document = {
            "tables": {
                label: {
                    "order": progress.order,
                    "place": [text_of(text) for text in progress.position],
                    "rows": progress.rows,
                    "present": progress.present,
                    "done": progress.done,
                }
                for label, progress in self.tables.items()
            }
        }
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            new.write_text(json.dumps(document))
            new.replace(self.path)
        except OSError as error:
            raise ReadFailure(f"{self.path}: cannot be written: {reason_of(error)}") from None
        self.saved_at = time.monotonic()

    def remove(self) -> None:
        """Everything was read: the next run reads all tables from their beginning."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def bytes_of(text: object) -> bytes:
    """What ``text_of`` was given. Raises TypeError for what is no text."""
    if not isinstance(text, str):
        raise TypeError("not text")
    return text.encode(errors="surrogateescape")


def text_of(data: bytes) -> str:
    """A column's text for JSON and the command line, also if its bytes are no UTF-8."""
    return data.decode(errors="surrogateescape")
