"""How far a command has come, on a terminal and elsewhere."""

import io

from rich.console import Console

from proxy.commands import progress
from proxy.commands.progress import ProgressDisplay


def test_lines_are_printed_after_each_interval(monkeypatch):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0)
    out = io.StringIO()
    with ProgressDisplay(Console(file=out)) as display:
        display.start("users", 2000)
        display.advance(1500)
        display.advance(1500)
        display.start("keys", None)
        display.advance(7)
        display.print_line("error: [bold]x[/bold]")
    assert out.getvalue().splitlines() == [
        "users: 1,500 of about 2,000",
        "users: 3,000",
        "keys: 7",
        "error: [bold]x[/bold]",
    ]


def test_no_line_is_printed_before_the_interval_is_over():
    out = io.StringIO()
    with ProgressDisplay(Console(file=out)) as display:
        display.start("users", 2000)
        display.advance(2000)
    assert out.getvalue() == ""


def test_terminal_shows_a_bar_with_the_label_and_numbers():
    out = io.StringIO()
    with ProgressDisplay(Console(file=out, force_terminal=True, width=100)) as display:
        display.start("[users]", 2000)
        display.advance(1500)
        assert display._bar is not None
        display._bar.refresh()
        display.print_line("note: [x]")
        display.advance(1500)
        display.start("keys", None)
        display.advance(7)
    assert "[users]" in out.getvalue()
    assert "1,500 of about 2,000" in out.getvalue()
    assert "note: [x]" in out.getvalue()
    assert "keys" in out.getvalue()
