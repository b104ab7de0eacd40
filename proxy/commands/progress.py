"""How far a long command has come: a bar on a terminal, elsewhere a line every few seconds. On standard error, so that
standard output, which has the command's result, can be redirected."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Task, TaskID

LINE_INTERVAL = 5.0
"""Seconds between two lines."""


class ProgressDisplay:
    """Shows how many rows of one table were read. Use with ``with``."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = Console(stderr=True, highlight=False) if console is None else console
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                _RowsColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
        self._task: TaskID | None = None
        self._label = ""
        self._done = 0
        self._total: int | None = None
        self._next_line = 0.0

    def __enter__(self) -> ProgressDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, label: str, total: int | None) -> None:
        """Count from 0 again, under another label. ``total`` is an estimate, or None."""
        self._label, self._total, self._done = label, total, 0
        self._next_line = time.monotonic() + LINE_INTERVAL
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(label, total=total)

    def advance(self, number: int) -> None:
        """So many more are done."""
        self._done += number
        if self._bar is not None and self._task is not None:
            # Beyond an estimate that was too low the bar must not look finished.
            if self._total is not None and self._done > self._total:
                self._bar.update(self._task, total=None)
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() >= self._next_line:
            about = f" of about {self._total:,}" if self._total is not None and self._total >= self._done else ""
            self.print_line(f"{self._label}: {self._done:,}{about}")
            self._next_line = time.monotonic() + LINE_INTERVAL

    def print_line(self, line: str) -> None:
        """A line that stays on the screen."""
        if self.console.is_terminal:
            self.console.print(Text(line), soft_wrap=True)
        else:
            self.console.out(line, highlight=False)


class _RowsColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = f" of about {int(task.total):,}" if task.total is not None else ""
        return Text(f"{int(task.completed):,}{total}")
