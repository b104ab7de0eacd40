"""Sentinels for the tests: of the same binary as the server they watch."""

import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from proxy.demo.servers import Valkey

PATIENCE = 90
"""Seconds, for what a sentinel decides in its own time."""


class Sentinel(Valkey):
    """A sentinel that alone decides for `primary`. `down_after` is in milliseconds."""

    title = "Sentinel"

    def __init__(self, primary, *, service="main", down_after=2000, lines=(), **options):
        super().__init__(binary=primary.binary, **options)
        self.lines = [
            f"sentinel monitor {service} {primary.host} {primary.port} 1",
            f"sentinel down-after-milliseconds {service} {down_after}",
            f"sentinel failover-timeout {service} 3000",
            *lines,
        ]

    def _command(self):
        command = super()._command()
        file = self.directory / "sentinel.conf"
        if not file.exists():  # Afterwards it is the sentinel's own.
            wanted = ("port ", "bind ", "dir ", "tls-")
            lines = (self.directory / "valkey.conf").read_text().splitlines()
            lines = [line for line in lines if line.startswith(wanted) or line.split(" ")[0] in self.settings]
            file.write_text("\n".join([*lines, *self.lines]) + "\n")
        return [command[0], str(file), "--sentinel"]

    def _answers(self, pid):
        # Sentinels do not know QUIT.
        trust = f"?ssl_ca_certs={self.tls.ca}" if self.tls else ""
        try:
            with redis.Redis.from_url(f"{self.url}{trust}", retry=Retry(NoBackoff(), 0), socket_timeout=1) as client:
                return client.info("server")["process_id"] == pid
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False


def where(*sentinels):
    return ",".join(f"{sentinel.host}:{sentinel.port}" for sentinel in sentinels)


def url(*sentinels, service="main"):
    return f"redis+sentinel://{where(*sentinels)}/{service}/0"


def wait(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.02)


def up(replica):
    """Whether a replica follows its primary. What becomes one hangs up on its clients."""
    try:
        return replica.info("replication").get("master_link_status") == "up"
    except redis.ConnectionError:
        return False


def leads(server):
    """Whether it is a primary by now."""
    try:
        return server.info("replication")["role"] == "master"
    except redis.ConnectionError:
        return False


def watching(primary, replica):
    """A running sentinel that knows of both. The caller closes it."""
    with redis.Redis.from_url(replica.url) as client:
        wait(lambda: up(client))
    sentinel = Sentinel(primary)
    sentinel.start()
    with redis.Redis.from_url(sentinel.url) as client:
        wait(lambda: len(client.execute_command("SENTINEL", "REPLICAS", "main")) == 1)
    return sentinel
