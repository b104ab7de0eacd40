"""Connections to Redis: how a URL makes one, how commands are packed for it, and what servers say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import unquote, urlsplit

import hiredis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = "command not allowed when used memory"
_UNDONE = (
    MEMORY,
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "BUSY ",
    "NOAUTH",
    "NOPERM",
    "TRYAGAIN",
    "LOADING",
    "EXECABORT",
)
"""Parts of error replies that a script gets at its first write at the latest: nothing of the batch was applied."""
_UNDONE_ERRORS = (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    ReadOnlyError,
    TryAgainError,
)
"""The same where redis-py cuts the code off the text."""


pack = cast("Callable[[tuple[bytes | int, ...]], bytes]", hiredis.pack_command)
"""A command as Redis reads it. redis-py's own way, in Python, costs several times as much."""


class Link(Protocol):
    """What is used of redis-py's connections, which are annotated in part."""

    @property
    def is_connected(self) -> bool: ...

    async def connect(self) -> None: ...

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None: ...

    async def read_response(self, *, disconnect_on_error: bool = True) -> Any: ...

    async def disconnect(self, *, nowait: bool = False) -> None: ...


def connector(url: str, timeout: float) -> Callable[[], Link]:
    """How to make a connection to ``url``; connections are made unconnected. Raises ValueError for a malformed one.

    ``redis+sentinel://[user:password@]host:port[,host:port…]/service[/database]`` asks sentinels for the master; the
    credentials are the master's.
    """
    options: dict[str, Any] = {
        "socket_timeout": None,  # The writer bounds each exchange as a whole.
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),  # A command must never be sent twice without our knowing.
        "protocol": 2,
        "health_check_interval": 0,
        "client_name": "rowtap",
    }
    parts = urlsplit(url)
    if parts.scheme != "redis+sentinel":
        return cast("Callable[[], Link]", ConnectionPool.from_url(url, **options).make_connection)
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not hosts:
        raise ValueError("redis+sentinel:// needs hosts and a service: redis+sentinel://host:26379/mymaster")
    sentinels = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":")
        sentinels.append((name or host, int(port) if name else 26379))
    user, _, password = credentials.partition(":")
    ask: Any = Sentinel  # Not annotated there.
    master = ask(sentinels, sentinel_kwargs={"socket_timeout": timeout}).master_for(
        service,
        db=int(database or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
        **options,
    )
    return cast("Callable[[], Link]", master.connection_pool.make_connection)


def problems(info: dict[str, str]) -> list[str]:
    """What INFO says against working with this server."""
    found = []
    valkey = info.get("valkey_version")
    version = _version(valkey or info.get("redis_version", ""))
    if valkey is None and version < (6, 2):
        found.append(f"Redis {info.get('redis_version', '?')} is too old: 6.2 or later is needed")
    if info.get("redis_mode") == "cluster":
        found.append("Redis is in cluster mode, which is not supported: use one primary, with Sentinel if need be")
    if info.get("role") == "slave":
        found.append("Redis is a read-only replica: give the primary's address")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0":
        if policy == "noeviction":
            found.append("maxmemory-policy is noeviction: when Redis is full, keys are removed but none are written")
        elif policy == "allkeys-random":
            found.append(
                "maxmemory-policy is allkeys-random: when it evicts Rowtap's own keys, all tables are flushed; "
                "allkeys-lru or allkeys-lfu keeps them"
            )
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def facts_of(reply: Any) -> dict[str, str]:
    if isinstance(reply, dict):
        return {str(name): str(value) for name, value in reply.items()}
    facts = {}
    for line in bytes(reply).decode(errors="replace").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            facts[name] = value
    return facts


def undone(error: BaseException) -> bool:
    """Whether an error says that a script did nothing."""
    if isinstance(error, _UNDONE_ERRORS):
        return True
    return isinstance(error, ResponseError) and any(part in str(error) for part in _UNDONE)


def words(error: BaseException) -> str:
    return str(error) or type(error).__name__
