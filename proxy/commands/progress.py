"""How far a long command has come: a bar on a terminal, now and then a line elsewhere. Standard error, so that what the
command has to say can go into a file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Task, TaskID

INTERVAL = 5.0
"""Seconds between two lines."""


class Meter:
    """Use with ``with``. One thing is counted at a time."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = Console(stderr=True, highlight=False) if console is None else console
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                _Rows(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
        self._task: TaskID | None = None
        self._what = ""
        self._done = 0
        self._total: int | None = None
        self._next = 0.0

    def __enter__(self) -> Meter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, what: str, total: int | None) -> None:
        """Count something else. ``total`` is an estimate, or None."""
        self._what, self._total, self._done = what, total, 0
        self._next = time.monotonic() + INTERVAL
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(what, total=total)

    def advance(self, number: int) -> None:
        """So many more are done."""
        self._done += number
        if self._bar is not None and self._task is not None:
            # An estimate that was too low shall not look like the end.
            if self._total is not None and self._done > self._total:
                self._bar.update(self._task, total=None)
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() >= self._next:
            about = f" of about {self._total:,}" if self._total is not None and self._total >= self._done else ""
            self.say(f"{self._what}: {self._done:,}{about}")
            self._next = time.monotonic() + INTERVAL

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.console.is_terminal:
            self.console.print(Text(line), soft_wrap=True)
        else:
            self.console.out(line, highlight=False)


class _Rows(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = f" of about {int(task.total):,}" if task.total is not None else ""
        return Text(f"{int(task.completed):,}{total}")
