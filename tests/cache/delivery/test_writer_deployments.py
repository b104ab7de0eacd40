"""The writer against Redis as people run it: TLS, users, sockets, failing disks, long scripts, replicas."""

import asyncio
import contextlib
import random
import re
import shutil
import ssl
import sys
from pathlib import Path

import pytest
import redis

from cache.changes import Kind
from cache.delivery.writer import Writer
from proxy.demo.servers import Valkey
from tests.cache.delivery.writing import Worker, load, working
from tests.fix_postgres import make_certificate

COMMANDS = (
    "+evalsha +eval +scan +unlink +info +client|setname +client|setinfo "
    "+time +hget +hmget +hgetall +hset +hdel +hlen +del +set +pexpire"
)
"""What a Redis user of Rowtap's must be allowed to do, with all keys of its own and of its rules."""
KEYS = "~rowtap:* ~users:*"


CATEGORIES = "+@read +@write +@connection +@scripting +info +time"
"""The same with less to write, as docs/operations.md has it."""


def permit(client, password, commands=COMMANDS):
    """Make the user `rowtap`. CLIENT SETINFO is new in 7.2, and 7.0 does not let rules name what it does not know."""
    words = ["ACL", "SETUSER", "rowtap", "on", f">{password}", *KEYS.split(), *commands.split()]
    if "7.0" <= client.info("server")["redis_version"] < "7.2" and "+client|setinfo" in words:
        words.remove("+client|setinfo")
    client.execute_command(*words)


# Ways to reach it.


@contextlib.asynccontextmanager
async def terminator(certificate, port, host="127.0.0.1"):
    """A TLS port in front of a server's plain one; yields its number."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)

    async def pump(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))

    front = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()


async def test_tls_by_a_terminator(tmp_path, server):
    certificate = make_certificate(tmp_path)
    async with terminator(certificate, server.port) as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate.ca}"
        async with working(url) as w:
            w.fill(b"v")
            w.store(b"\x00" * 300_000, key=b"users:2")
            await w.settle()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("users:1") == b"v"
            assert client.strlen("users:2") == 300_000


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_certificate_that_does_not_verify_keeps_everything_out(tmp_path, server, wrong):
    if wrong == "name" and sys.platform == "darwin":
        pytest.skip("there is one loopback address only")
    certificate = make_certificate(tmp_path)
    ca, host = certificate.ca, "127.0.0.2"
    if wrong == "authority":
        host = "127.0.0.1"
        other = tmp_path / "other"
        other.mkdir()
        ca = make_certificate(other).ca
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # The terminator's own handshake fails too.
    async with terminator(certificate, server.port, host) as port:
        worker = Worker(f"rediss://{host}:{port}/0?ssl_ca_certs={ca}")
        [problem] = await worker.writer.check()
        assert "certificate" in problem.lower()
        async with working(f"rediss://{host}:{port}/0?ssl_ca_certs={ca}", settle=False) as w:
            w.store(b"v")
            await asyncio.sleep(0.3)
            assert not w.writer.connected
            assert w.backlog.pending
    with redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 0


@pytest.fixture
def tls_server(tmp_path, redis_tls_binary):
    """`tls_server(**settings)`: a server that speaks TLS itself."""
    certificate = make_certificate(tmp_path)
    with contextlib.ExitStack() as stack:

        def start(**settings):
            return stack.enter_context(Valkey(binary=redis_tls_binary, tls=certificate, settings=settings))

        yield start


async def refused(url, server):
    """What the writer's check says of a URL by which nothing gets in, however long it tries."""
    [problem] = await Worker(url).writer.check()
    async with working(url, settle=False) as w:
        w.store(b"v")
        await w.until(lambda: w.events.count("redis lost") >= 3)
        assert not w.writer.connected
        assert w.backlog.pending
    with redis.Redis.from_url(server.unix_url) as client:
        assert client.dbsize() == 0
    return problem


async def test_tls_by_the_server_itself(tls_server):
    server = tls_server()
    async with working(f"{server.url}/2?ssl_ca_certs={server.tls.ca}") as w:
        assert await w.writer.check() == []
        w.fill(b"v")
        w.store(b"\x00" * 300_000, key=b"users:2")
        await w.settle()
        server.kill()
        await w.until(lambda: not w.writer.connected)
        w.store(b"new")
        await asyncio.to_thread(server.start)
        await w.settle()
        with redis.Redis.from_url(f"{server.unix_url}?db=2") as client:
            assert client.get("users:1") in (None, b"new"), "the tables were flushed: this Redis is another one"
            w.store(b"newer")
            await w.settle()
            assert client.get("users:1") == b"newer"


async def test_servers_certificate_that_does_not_verify_keeps_everything_out(tmp_path, tls_server):
    server = tls_server(bind="127.0.0.1 127.0.0.2" if sys.platform == "linux" else "127.0.0.1")
    other = tmp_path / "other"
    other.mkdir()
    assert "certificate" in (await refused(f"{server.url}?ssl_ca_certs={make_certificate(other).ca}", server)).lower()
    assert "certificate" in (await refused(server.url, server)).lower(), "the system's authorities are no better"
    if sys.platform == "linux":
        url = f"rediss://127.0.0.2:{server.port}?ssl_ca_certs={server.tls.ca}"
        assert "127.0.0.2" in await refused(url, server)
    assert "does not answer" in await refused(f"redis://{server.host}:{server.port}", server)


async def test_server_that_asks_for_a_certificate_gets_the_one_of_the_url(tmp_path, tls_server):
    server = tls_server()
    other = tmp_path / "other"
    other.mkdir()
    wrong = make_certificate(other)
    with redis.Redis.from_url(server.unix_url) as client:
        client.config_set("tls-auth-clients", "yes")
    url = f"{server.url}?ssl_ca_certs={server.tls.ca}"
    await refused(url, server)
    await refused(f"{url}&ssl_certfile={wrong.cert}&ssl_keyfile={wrong.key}", server)
    async with working(f"{url}&ssl_certfile={server.tls.cert}&ssl_keyfile={server.tls.key}") as w:
        assert await w.writer.check() == []
        w.store(b"v")
        await w.settle()


async def test_unix_socket(server):
    async with working(f"{server.unix_url}?db=3") as w:
        w.fill(b"v")
        await w.settle()
    with redis.Redis.from_url(f"{server.url}/3") as client:
        assert client.get("users:1") == b"v"


@pytest.mark.parametrize("commands", [COMMANDS, CATEGORIES], ids=["commands", "categories"])
async def test_user_with_the_documented_rights_can_do_everything(server, commands):
    with redis.Redis.from_url(server.url) as client:
        permit(client, "p@ss/word", commands)
        url = f"redis://rowtap:p%40ss%2Fword@127.0.0.1:{server.port}/0"
        async with working(url) as w:
            assert await w.writer.check() == []
            w.fill(b"v")
            w.store(b"v", key=b"users:2")
            await w.settle()
            assert client.mget("users:1", "users:2") == [b"v", b"v"]
            block = w.backlog.block([w.change(Kind.EVICT)])
            assert await block.wait(5)
            w.flush()
            w.backlog.release(block)
            await w.settle()
            assert client.mget("users:1", "users:2") == [None, None]
            assert await w.writer.drain(5)
        assert {entry["reason"] for entry in client.acl_log()} == set()


def test_documented_rights_are_the_tested_ones():
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    assert f"ACL SETUSER rowtap on >secret {KEYS} {CATEGORIES}" in text


@pytest.mark.parametrize("command", re.findall(r"\+(?!evalsha|info|scan|client)(\w+)", COMMANDS))
async def test_check_tells_of_a_missing_right_and_leaves_nothing_behind(server, command):
    with redis.Redis.from_url(server.url) as client:
        permit(client, "p")
        client.execute_command("ACL", "SETUSER", "rowtap", f"-{command}")
        [problem] = await Worker(f"redis://rowtap:p@127.0.0.1:{server.port}/0").writer.check()
        assert problem.startswith("Redis refuses what Rowtap needs: ")
        assert client.dbsize() == 0


async def test_first_failure_is_a_warning_and_the_next_ones_are_for_debugging(server):
    said = []
    with redis.Redis.from_url(server.url) as client:
        permit(client, "p", COMMANDS.replace("+time ", ""))
        url = f"redis://rowtap:p@127.0.0.1:{server.port}/0"
        writer = Writer(Worker(url).backlog, url, worker="w", max_delay=0.1, on_event=lambda *line: said.append(line))
        task = asyncio.create_task(writer.run())
        async with asyncio.timeout(15):
            while len(said) < 3:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [level for level, _, _ in said[:3]] == ["warning", "debug", "debug"]
        assert {event for _, event, _ in said} == {"redis lost"}


async def test_batch_waits_while_rights_are_taken_away(server):
    with redis.Redis.from_url(server.url) as client:
        permit(client, "p")
        async with working(f"redis://rowtap:p@127.0.0.1:{server.port}/0") as w:
            client.execute_command("ACL", "SETUSER", "rowtap", "-evalsha", "-eval")
            w.store(b"v")
            await w.until(lambda: not w.writer.connected)
            assert w.backlog.pending
            client.execute_command("ACL", "SETUSER", "rowtap", "+evalsha", "+eval")
            await w.settle()
            assert client.get("users:1") == b"v", "it was refused, so it was surely not applied"


async def test_wrong_password_keeps_everything_out_until_it_is_right(server):
    with redis.Redis.from_url(server.url) as client:
        permit(client, "right")
        url = f"redis://rowtap:wrong@127.0.0.1:{server.port}/0"
        [problem] = await Worker(url).writer.check()
        assert "password" in problem.lower() or "auth" in problem.lower()
        async with working(url, settle=False) as w:
            w.store(b"v")
            await asyncio.sleep(0.2)
            assert not w.writer.connected
            client.execute_command("ACL", "SETUSER", "rowtap", ">wrong")
            await w.settle()


# Refusals that pass.


async def test_batch_waits_while_redis_is_busy_with_another_script(server):
    with redis.Redis.from_url(server.url) as client, redis.Redis.from_url(server.url) as other:
        async with working(server.url) as w:
            client.config_set("lua-time-limit", 20)  # By its older name, which all versions know.
            spinning = asyncio.create_task(asyncio.to_thread(spin, other))
            await asyncio.sleep(0.1)
            w.store(b"v")
            await w.until(lambda: not w.writer.connected)
            assert w.backlog.pending
            client.script_kill()
            await spinning
            await w.settle()
            assert client.get("users:1") == b"v", "it was refused, so it was surely not applied"


def spin(client):
    with contextlib.suppress(redis.ResponseError):
        client.eval("while true do end", 0)


async def test_batch_waits_while_the_disk_cannot_be_written(tmp_path):
    with Valkey(settings={"dbfilename": "dump", "save": "3600 1000000"}) as server:
        obstacle = server.directory / "dump"
        with redis.Redis.from_url(server.url) as client:
            async with working(server.url) as w:
                obstacle.mkdir()
                (obstacle / "in the way").touch()
                client.bgsave()
                await w.until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
                with pytest.raises(redis.ResponseError, match="MISCONF"):
                    client.set("other", "v")
                w.store(b"v")
                await w.until(lambda: not w.writer.connected)
                assert w.backlog.pending
                shutil.rmtree(obstacle)
                client.bgsave()
                await w.settle()
                assert client.get("users:1") == b"v", "it was refused, so it was surely not applied"


# Replicas.


async def test_nothing_is_stale_after_a_replica_was_promoted_under_load(server, faulty):
    """The address moves to the replica, which never got what the primary took last."""
    dice = random.Random(1)
    link = faulty("127.0.0.1", server.port)
    url = f"redis://127.0.0.1:{link.port}"
    with Valkey(replica_of=server) as replica, redis.Redis.from_url(replica.url) as client:
        async with working(url) as w, working(url, "x") as x:
            await w.until(lambda: client.info("replication")["master_link_status"] == "up", 20)
            rows = dict.fromkeys((b"users:%d" % i for i in range(50)), 0)
            going = True
            sessions = [
                asyncio.create_task(load(worker, rows, dice, lambda: going)) for worker in (w, x) for _ in range(5)
            ]
            await asyncio.sleep(0.3)
            # What is written from here on never reaches the replica.
            client.execute_command("CLIENT", "KILL", "TYPE", "MASTER")
            client.replicaof("NO", "ONE")
            await asyncio.sleep(0.2)
            server.kill()
            link.target = ("127.0.0.1", replica.port)
            await asyncio.sleep(0.5)
            going = False
            await asyncio.gather(*sessions)
            await w.settle()
            await x.settle()
            assert w.backlog.counts.epochs == x.backlog.counts.epochs == 1
            for key, value in rows.items():
                assert client.get(key) in (None, b"%d" % value)
            # A worker that has not heard of the other's last writes yet is refused, and told of them by that.
            for _ in range(2):
                for key, value in rows.items():
                    w.fill(b"%d" % value, key=key)
                await w.settle()
            assert client.mget(list(rows)) == [b"%d" % value for value in rows.values()]
