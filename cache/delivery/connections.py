"""Connections to Redis: how a URL makes one, also by way of sentinels, and how commands are packed for it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import hiredis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from cache.delivery.faults import describe, is_expected
from cache.delivery.server_info import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK_INTERVAL = 1.0
"""Seconds between two questions to a sentinel whether the primary is still the same, as long as commands are sent."""
LOOK_PATIENCE = 0.25
"""Seconds for the answer: commands wait for it."""

_SENTINEL_LOGIN = {"sentinel_username", "sentinel_password"}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

pack = cast("Callable[[tuple[bytes | int, ...]], bytes]", hiredis.pack_command)
"""A command as Redis reads it. redis-py's own way, in Python, costs several times as much."""


class RedisConnection(Protocol):
    """What is used of redis-py's connections, which are annotated in part."""

    @property
    def is_connected(self) -> bool: ...

    async def connect(self) -> None: ...

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None: ...

    async def read_response(self, *, disconnect_on_error: bool = True) -> Any: ...

    async def disconnect(self, *, nowait: bool = False) -> None: ...


def connector(url: str, timeout: float) -> Callable[[], RedisConnection]:
    """How to make a connection to ``url``; connections are made unconnected, and open within ``timeout`` seconds.

    Raises ValueError for a malformed URL; no message repeats what may be a password.
    ``redis+sentinel://[user:password@]host:port[,host:port…]/service[/database]`` asks sentinels for the primary; the
    credentials are the primary's, the sentinels' own are ``?sentinel_username=…&sentinel_password=…``.
    ``rediss+sentinel://`` speaks TLS with all of them.
    """
    parts = urlsplit(url)
    scheme, plus, sentinel = parts.scheme.partition("+")
    if not plus:
        return _opener(_pool(url, timeout))
    if sentinel != "sentinel" or scheme not in {"redis", "rediss"}:
        raise ValueError("Redis is reached by redis://, rediss://, unix:// or redis+sentinel://")
    credentials, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError("redis+sentinel:// needs hosts and a service: redis+sentinel://host:26379/mymaster")
    if database and not database.isdigit():
        raise ValueError("redis+sentinel:// ends with the number of a database: redis+sentinel://host/mymaster/0")
    options = parse_qsl(parts.query, keep_blank_values=True)
    login = {name.removeprefix("sentinel_"): value for name, value in options if name in _SENTINEL_LOGIN}
    query = urlencode([(name, value) for name, value in options if name not in _SENTINEL_LOGIN])
    # The host is not used: each connection is told the primary's.
    pool = _pool(f"{scheme}://{credentials}{at}primary/{database}?{query}", timeout)
    primary = _PrimaryWithTLS if issubclass(pool.connection_class, SSLConnection) else _Primary
    tls = {name: value for name, value in pool.connection_kwargs.items() if name.startswith("ssl_")}
    sentinels = _Sentinels(
        [_address(host) for host in hosts.split(",")],
        unquote(service),
        timeout,
        pool.connection_class,
        tls | _options(timeout) | login,
    )
    pool.connection_class = primary
    pool.connection_kwargs["sentinels"] = sentinels
    return _opener(pool)


def _options(timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": None,  # The writer bounds each exchange as a whole.
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),  # A command must never be sent twice without our knowing.
        "protocol": 2,
        "health_check_interval": 0,
        "decode_responses": False,
    }


def _pool(url: str, timeout: float) -> Any:
    """What redis-py makes of a URL, with what we count on in place of what the URL may say of it."""
    pool: Any = ConnectionPool.from_url(url)
    pool.connection_kwargs |= _options(timeout) | {"client_name": "rowtap"}
    for name in _FILES:
        # Python's TLS does not say which file is missing.
        if (file := pool.connection_kwargs.get(name)) is not None and not Path(file).is_file():
            raise ValueError(f"{name}: there is no file {file}")
    return pool


def _opener(pool: Any) -> Callable[[], RedisConnection]:
    try:
        pool.make_connection()
    except TypeError as error:
        name = str(error).rpartition("argument ")[2]
        raise ValueError(f"has an option that is not known: {name}") from None
    except RedisError as error:
        raise ValueError(f"has an option that cannot be: {error}") from None
    return cast("Callable[[], RedisConnection]", pool.make_connection)


def _address(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname:
            return parts.hostname, parts.port or 26379
    except ValueError:
        pass
    raise ValueError(f"names no sentinel: {text!r}; write host or host:port")


class _Sentinels:
    """The sentinels that know where the primary of ``service`` is: the one that helped last is asked first."""

    def __init__(
        self,
        addresses: list[tuple[str, int]],
        service: str,
        timeout: float,
        connection: Callable[..., RedisConnection],
        options: dict[str, Any],
    ) -> None:
        self.service = service
        self._addresses = addresses
        self._connection = connection
        # One that does not answer must leave time for the others, and for the primary.
        self._timeout = timeout / (len(addresses) + 1)
        self._options = options

    def each(self) -> Iterator[tuple[str, int]]:
        """Every sentinel, once, the last one that helped first. Each goes to the end as it is asked, so a caller that
        stops in the middle goes on from there the next time."""
        for address in list(self._addresses):
            self._addresses.remove(address)
            self._addresses.append(address)
            yield address

    def helped(self, address: tuple[str, int]) -> None:
        """This one led to the primary: ask it first from now on."""
        self._addresses.remove(address)
        self._addresses.insert(0, address)

    async def ask(self, address: tuple[str, int], patience: float = math.inf) -> tuple[str, int]:
        """Host and port of the primary, as one sentinel has them; within ``patience`` seconds."""
        seconds = min(self._timeout, patience)
        limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        connection = self._connection(host=address[0], port=address[1], **self._options | limits)
        try:
            await connection.connect()
            command = pack((b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.service.encode()))
            await connection.send_packed_command(command, check_health=False)
            reply = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        if not reply:
            raise RedisConnectionError("does not know the service")
        return bytes(reply[0]).decode(), int(reply[1])


class _Primary(Connection):
    """A connection to what the first of ``sentinels`` calls primary that can be reached and is one.

    It ends when another server is called so. A primary that is replaced while it lives takes commands for ten seconds
    more; one that is cut off from the sentinels, and not from us, takes them for ever.
    """

    def __init__(self, *, sentinels: _Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        self._next_look = math.inf
        super().__init__(**options)

    async def connect(self) -> None:
        if self.is_connected:
            return
        connect: Any = super().connect  # Not annotated there.
        self._next_look = math.inf
        failures = []
        for sentinel in self._sentinels.each():
            try:
                self.host, self.port = await self._sentinels.ask(sentinel)
                await connect()
                await self._refuse_replica()
            except Exception as error:
                if not is_expected(error):
                    raise
                failures.append(f"{sentinel[0]}:{sentinel[1]}: {describe(error)}")
                await self.disconnect(nowait=True)
            else:
                self._sentinels.helped(sentinel)
                self._next_look = time.monotonic() + LOOK_INTERVAL
                return
        raise RedisConnectionError(
            f"no sentinel leads to the primary of {self._sentinels.service!r} ({'; '.join(failures)})"
        )

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if time.monotonic() >= self._next_look:
            await self._look()
        send: Any = super().send_packed_command
        await send(command, check_health)

    async def _look(self) -> None:
        """Ask one sentinel whether this is still the primary. No answer is no reason to leave it."""
        self._next_look = time.monotonic() + LOOK_INTERVAL
        sentinel = next(self._sentinels.each())
        try:
            place = await self._sentinels.ask(sentinel, LOOK_PATIENCE)
        except Exception as error:
            if not is_expected(error):
                raise
            self._next_look += 4 * LOOK_INTERVAL  # What is sent waits meanwhile.
            return
        self._sentinels.helped(sentinel)
        if place != (self.host, self.port):
            raise RedisConnectionError(f"{self.host}:{self.port} is no longer the primary: {place[0]}:{place[1]} is")

    async def _refuse_replica(self) -> None:
        """A sentinel that was away may take an old primary for the present one."""
        await self.send_packed_command(pack((b"INFO", b"replication")), check_health=False)
        try:
            facts = facts_of(await self.read_response())
        except ResponseError:
            return  # Not permitted. What writes is refused by a replica; what reads sees it as it is.
        if facts.get("role") == "slave":
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica")


class _PrimaryWithTLS(_Primary, SSLConnection):
    pass
