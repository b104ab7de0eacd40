"""Which exceptions the writer expects, what they say of a batch's outcome, and how faults of our own are reported."""

import asyncio
import socket
import struct
import threading

import pytest
import redis
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from cache.counts import Counts
from cache.delivery import faults
from cache.delivery.faults import (
    Faults,
    NameTakenError,
    ScriptFaultError,
    describe,
    is_expected,
    is_out_of_memory,
    is_undone,
    script_fault,
)
from cache.delivery.scripts import Script

# What is expected.


@pytest.mark.parametrize(
    "error",
    [
        RedisConnectionError("gone"),
        ResponseError("ERR whatever"),
        NameTakenError("taken"),
        ConnectionResetError(),
        TimeoutError(),
        EOFError(),
        asyncio.IncompleteReadError(b"", 1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_redis_and_sockets_raise_is_expected(error):
    assert is_expected(error)


@pytest.mark.parametrize(
    "error",
    [TypeError("x"), AssertionError(), KeyError("k"), RuntimeError("other"), UnicodeError("other"), ScriptFaultError()],
    ids=lambda error: type(error).__name__,
)
def test_anything_else_is_not_expected(error):
    assert not is_expected(error)


def test_write_to_a_transport_that_was_reset_is_expected_of_uvloop():
    async def reset_and_write():
        async def reset(reader, writer):
            await reader.read(1)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(10):
                while True:
                    writer.write(b"x")
                    await asyncio.sleep(0.01)
        finally:
            server.close()

    with pytest.raises(RuntimeError) as caught:
        uvloop.run(reset_and_write())
    assert is_expected(caught.value)


async def test_host_name_that_cannot_be_one_is_expected():
    with pytest.raises(UnicodeError) as caught:
        await asyncio.open_connection("redis..example", 6379)
    assert is_expected(caught.value)


# What became of the batch.


@pytest.mark.parametrize(
    ("error", "undone"),
    [
        (ResponseError("BUSY Redis is busy running a script"), True),
        (ReadOnlyError("You can't write against a read only replica."), True),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), True),
        (ResponseError("WRONGTYPE Operation against a key"), False),
        (RedisConnectionError("gone"), False),
        (ScriptFaultError("READONLY"), False),
        (TimeoutError(), False),
    ],
    ids=str,
)
def test_batch_is_undone_only_if_the_error_says_so(error, undone):
    assert is_undone(error) is undone


def test_refusal_for_want_of_memory_is_told_from_others():
    assert is_out_of_memory(OutOfMemoryError("command not allowed when used memory > 'maxmemory'."))
    assert not is_out_of_memory(ResponseError("WRONGTYPE"))


def test_description_is_never_empty():
    assert describe(TimeoutError()) == "no answer in time"
    assert describe(TimeoutError("after 5 s")) == "after 5 s"
    assert describe(EOFError()) == "EOFError"


# Faults of a script.


def answer(client, text):
    with pytest.raises(ResponseError) as caught:
        client.eval(text, 0)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "local a = nil\nreturn a.b",
        "local a = 1\nreturn nil + 1",
        "local a = 1\nreturn unknown_name",
        "local a = 1\nretrun 1",
        "local a = 1\nreturn redis.call('HSET', 'a')",
        "local a = 1\nreturn redis.call('HSET', 'a', {}, 1)",
        "local a = 1\nreturn redis.call('PEXPIRE', 'a', 'x')",
        "local a = 1\nerror('anything')",
    ],
    ids=["index", "arithmetic", "global", "syntax", "arity", "type of an argument", "not a number", "error"],
)
def test_error_of_the_script_itself_is_a_fault_with_its_line(redis_client, text):
    script = Script(text, ("head.lua:7", "body.lua:9"))
    fault = script_fault(script, answer(redis_client, text))
    assert isinstance(fault, ScriptFaultError)
    assert str(fault).startswith("body.lua:9: ")


@pytest.mark.parametrize("reason", ["wrong type", "not permitted", "no such command", "killed", "full", "replica"])
def test_error_that_a_right_script_can_have_is_no_fault(server, reason):
    with redis.Redis.from_url(server.url) as client:
        text = "return redis.call('HSET', 'k', 'a', 'b')"
        asking = client
        if reason == "wrong type":
            client.set("k", "a string")
        elif reason == "not permitted":
            client.execute_command("ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-hset")
            asking = redis.Redis.from_url(f"redis://u:p@{server.host}:{server.port}")
        elif reason == "no such command":
            text = "return redis.call('NO_SUCH_COMMAND')"
        elif reason == "killed":
            text = "while true do end"
            asking = redis.Redis.from_url(server.url)
            kill_soon(client)
        elif reason == "full":
            client.config_set("maxmemory", 1)
        else:
            client.replicaof("127.0.0.1", 1)
        with asking:
            assert script_fault(Script(text), answer(asking, text)) is None


def kill_soon(client):
    """Kill the script that will be running in a moment."""

    client.config_set("lua-time-limit", 20)

    def kill():
        for _ in range(500):
            try:
                client.script_kill()
            except redis.RedisError:
                continue
            return

    threading.Thread(target=kill, daemon=True).start()


@pytest.mark.parametrize(
    "text",
    [
        "Error running script (call to f_ab): @user_script:12: @user_script: 12: -READONLY You can't write against a r",
        "Error running script (call to f_ab): @user_script:12: WRONGTYPE Operation against a key",
        "Error running script (call to f_ab): @user_script:9: The user executing the script can't run this command",
        "MISCONF Redis is configured to save RDB snapshots script: on @user_script:12.",
        "whatever",
    ],
)
def test_errors_as_redis_6_words_them_are_no_faults(text):
    assert script_fault(Script(""), ResponseError(text)) is None


def test_fault_as_redis_6_words_it():
    text = "Error running script (call to f_ab): @user_script:2: user_script:2: attempt to index local 'a'"
    assert str(script_fault(Script("", ("a.lua:1", "a.lua:2")), ResponseError(text))) == f"a.lua:2: {text}"


# Reports.


def caught(error, line=1):
    """``error`` with a traceback; another ``line`` is another place."""
    try:
        exec("\n" * line + "raise error", {"error": error})
    except Exception as found:  # noqa: BLE001 - whatever it was given
        return found


class Reporting(Faults):
    """Keeps what is reported in ``reported``."""

    def __init__(self):
        self.reported: list[BaseException] = []
        self.counts = Counts()
        super().__init__("writer", self.counts, self.note)

    def note(self, where, error):
        self.counts.internal_error(where)
        self.reported.append(error)


@pytest.fixture
def reports():
    return Reporting()


def test_first_fault_of_a_kind_is_reported_and_every_one_is_counted(reports):
    for error, line in ((TypeError("a"), 1), (TypeError("b"), 1), (TypeError("a"), 2), (KeyError("a"), 1)):
        reports.report(caught(error, line))
    assert [(type(error), str(error)) for error in reports.reported] == [
        (TypeError, "a"),
        (TypeError, "a"),
        (KeyError, "'a'"),
    ]
    assert reports.counts.internal_errors == {"writer": 4}


def test_faults_of_a_script_are_told_apart_by_their_text(reports):
    for text in ("apply.lua:1: a", "apply.lua:2: a", "apply.lua:1: a"):
        reports.report(caught(ScriptFaultError(text)))
    assert [str(error) for error in reports.reported] == ["apply.lua:1: a", "apply.lua:2: a"]
    reports.report(ValueError("never raised"))
    assert len(reports.reported) == 3


def test_no_more_than_so_many_kinds_are_reported(reports, monkeypatch):
    monkeypatch.setattr(faults, "MAX_KINDS", 3)
    for line in range(5):
        reports.report(caught(TypeError(), line))
    assert len(reports.reported) == 3
    assert reports.counts.internal_errors == {"writer": 5}


def test_faults_are_counted_without_a_report():
    counts = Counts()
    Faults("writer", counts, None).report(caught(TypeError()))
    assert counts.internal_errors == {"writer": 1}


def test_faults_in_a_row_are_forgotten_after_a_quiet_time(reports, monkeypatch):
    reports.report(caught(TypeError()))
    reports.report(caught(TypeError()))
    assert reports.in_a_row == 2
    monkeypatch.setattr(faults, "QUIET_SECONDS", -1.0)
    reports.report(caught(TypeError()))
    assert reports.in_a_row == 1
