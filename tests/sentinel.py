"""Redis Sentinels for the tests, started from the same binary as the server they monitor."""

import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from proxy.demo.servers import Valkey

PATIENCE = 90
"""Seconds to wait for a decision of a sentinel."""


class Sentinel(Valkey):
    """A sentinel with a quorum of one that monitors `primary`. `down_after` is in milliseconds."""

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
        if not file.exists():  # The sentinel rewrites an existing file itself.
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


def addresses(*sentinels):
    """The addresses of the sentinels, as a URL lists them."""
    return ",".join(f"{sentinel.host}:{sentinel.port}" for sentinel in sentinels)


def url(*sentinels, service="main"):
    """The URL with which Rowtap asks these sentinels for the primary of `service`."""
    return f"redis+sentinel://{addresses(*sentinels)}/{service}/0"


def wait(condition, seconds=PATIENCE):
    """Wait until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition did not hold within {seconds} s"
        time.sleep(0.02)


def follows_primary(replica):
    """Whether a replica is connected to its primary. A server that is becoming a replica closes its clients'
    connections."""
    try:
        return replica.info("replication").get("master_link_status") == "up"
    except redis.ConnectionError:
        return False


def is_primary(server):
    """Whether the server is a primary."""
    try:
        return server.info("replication")["role"] == "master"
    except redis.ConnectionError:
        return False


def start_sentinel(primary, replica):
    """A running sentinel that knows `primary` and `replica`. The caller closes it."""
    with redis.Redis.from_url(replica.url) as client:
        wait(lambda: follows_primary(client))
    sentinel = Sentinel(primary)
    sentinel.start()
    with redis.Redis.from_url(sentinel.url) as client:
        wait(lambda: len(client.execute_command("SENTINEL", "REPLICAS", "main")) == 1)
    return sentinel
