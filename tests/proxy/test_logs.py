"""Log lines: their form, their level, and what must never be in them."""

import io
import json
import logging

import pytest

from proxy import logs
from proxy.config.sections import LogSection


@pytest.fixture
def stream():
    """Where the log goes; the root logger is as before afterwards."""
    root = logging.getLogger()
    level = root.level
    yield io.StringIO()
    for handler in list(root.handlers):
        if getattr(handler, "rowtap", False):
            root.removeHandler(handler)
    root.setLevel(level)


def test_text_line_has_level_event_and_fields(stream):
    logs.configure(LogSection(), stream)
    logs.get(connection=17).warning("client went away", after_ms=5)
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "[warning" in line
    assert "client went away after_ms=5 connection=17" in line
    assert "\x1b" not in line, "no colours but on a terminal"


def test_json_line_is_one_object(stream):
    logs.configure(LogSection(format="json"), stream)
    logs.get(connection=17).info("client connected", peer="127.0.0.1:5")
    entry = json.loads(stream.getvalue())
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"connection": 17, "peer": "127.0.0.1:5", "event": "client connected", "level": "info"}


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_lines_below_the_level_are_not_written(stream, level):
    logs.configure(LogSection(level=level, format="json"), stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(logs.get(), name)("x")
    seen = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert seen == ["debug", "info", "warning", "error"][["debug", "info", "warning", "error"].index(level) :]


def test_loggers_made_before_follow_a_new_configuration(stream):
    logs.configure(LogSection(level="error"), io.StringIO())
    log = logs.get(connection=1).bind(user="x")
    log.info("unseen")
    logs.configure(LogSection(level="debug", format="json"), stream)
    log.debug("seen")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["seen"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_traceback_has_no_local_variables_and_urls_no_passwords(stream, form):
    logs.configure(LogSection(format=form), stream)
    row = "a customer's row"
    try:
        raise ValueError(len(row))
    except ValueError:
        logs.get().exception("cannot reach Redis", url="redis://rowtap:geheim@redis:6379/0")
    text = stream.getvalue()
    assert "ValueError" in text
    assert "geheim" not in text
    assert row not in text
    assert "redis://rowtap:***@redis:6379/0" in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_of_other_libraries_are_formatted_and_masked_too(stream, form):
    logs.configure(LogSection(format=form), stream)
    logging.getLogger("asyncio").warning("slow: %s", "redis://:geheim@x/0")
    assert "slow: redis://:***@x/0" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_value_with_a_line_break_stays_on_its_line(stream):
    logs.configure(LogSection(), stream)
    logs.get().info("startup packet refused", user="x\n2026-01-01 [error] all is lost")
    assert stream.getvalue().count("\n") == 1
