"""The sections of ``config.toml`` and their keys: names, types, bounds and defaults.

``load`` knows where the values come from and words the messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cache.rules import ValueFormat
from proxy.config import units
from proxy.config.units import Address


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {what} in quotes, not {value!r}")
    return value


def _seconds(value: Any) -> float:
    return units.seconds(_text(value, 'a duration such as "30s"'))


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than nothing")
    return value


def _optional_timeout(value: Any) -> float | None:
    return None if value == "off" else _positive(_seconds(value))


def _address(value: Any) -> Address:
    return units.address(_text(value, 'an address such as "127.0.0.1:6432"'))


def _addresses(value: Any) -> tuple[Address, ...]:
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise ValueError('needs at least one address, such as "127.0.0.1:6432"')
    found = tuple(_address(entry) for entry in entries)
    for entry in found:
        if found.count(entry) > 1:
            raise ValueError(f"names {entry} twice")
    return found


def _optional_address(value: Any) -> Address | None:
    return None if value == "off" else _address(value)


def _columns(value: Any) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise ValueError("needs at least one column")
    names = tuple(units.identifier(_text(entry, "a column's name")) for entry in entries)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"names the column {name!r} twice")
    return names


def _workers(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise ValueError(f'must be a number from 1 to 1024, or "auto", not {value!r}')
    return value


def _path(value: Any, info: ValidationInfo) -> Path:
    """A relative path is relative to the configuration file's directory, whatever the current directory is."""
    text = _text(value, "a path")
    if not text or "\0" in text:
        raise ValueError("must be a path")
    return Path((info.context or {}).get("directory", "."), text)


def _roots(value: Any, info: ValidationInfo) -> Path | Literal["system"]:
    return "system" if value == "system" else _path(value, info)


Seconds = Annotated[float, BeforeValidator(_seconds)]
Timeout = Annotated[float, BeforeValidator(_seconds), AfterValidator(_positive)]
Identifier = Annotated[str, AfterValidator(units.identifier)]
Columns = Annotated[tuple[str, ...], BeforeValidator(_columns)]
FilePath = Annotated[Path, BeforeValidator(_path)]


class Section(BaseModel):
    """Frozen; strict, so that a number in quotes is refused; without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TlsSection(Section):
    """``[proxy.tls]``: TLS between clients and Rowtap."""

    cert: FilePath
    key: FilePath
    ca: FilePath | None = None
    """Certificate authorities that clients' certificates are checked against; None asks for no certificate."""
    required: bool = False
    """Refuse clients that do not use TLS."""
    passphrase: SecretStr | None = None


class ProxySection(Section):
    """``[proxy]``. Times are seconds."""

    listen: Annotated[tuple[Address, ...], BeforeValidator(_addresses)] = (Address("127.0.0.1", 6432),)
    workers: Annotated[int | Literal["auto"], BeforeValidator(_workers)] = 1
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    shutdown_timeout: Seconds = 30.0
    client_login_timeout: Timeout = 60.0
    tls: TlsSection | None = None


SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class PostgresSection(Section):
    """``[postgres]``: the server behind the proxy."""

    host: str = "localhost"
    port: Annotated[int, Field(ge=1, le=65_535)] = 5432
    database: Identifier | None = None
    """Default database of the ``[[table]]`` entries."""
    sslmode: SslMode = "prefer"
    sslrootcert: Annotated[Path | Literal["system"] | None, BeforeValidator(_roots)] = None
    """A file, or the certificates that this machine's operating system trusts."""
    connect_timeout: Timeout = 10.0
    catalog_interval: Annotated[float | None, BeforeValidator(_optional_timeout)] = 5.0
    """Seconds after which a worker looks for DDL that it has not seen; None ("off" in the file): never."""

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        if not value or any(character.isspace() or character == "\0" for character in value):
            raise ValueError(f"must be a name, an address or the directory of a Unix socket, not {value!r}")
        if "://" in value or "," in value:
            raise ValueError("must be one host; port and database have keys of their own")
        return value

    @property
    def socket_path(self) -> str | None:
        """The Unix socket to connect to; None for TCP."""
        return units.socket_path(self.host, self.port) if self.host.startswith(("/", "@")) else None

    def __str__(self) -> str:
        return str(Address(self.host, self.port, self.socket_path)).replace("\0", "@")

    @model_validator(mode="after")
    def _trusted(self) -> PostgresSection:
        if self.sslmode.startswith("verify-") and self.sslrootcert is None:
            raise ValueError(
                f'sslmode = "{self.sslmode}" needs sslrootcert, the file of trusted certificates, or "system"'
            )
        if self.sslrootcert == "system" and self.sslmode != "verify-full":
            # The system's authorities certify every owner of a domain: the name must be compared too.
            raise ValueError('sslrootcert = "system" needs sslmode = "verify-full"')
        return self


class RedisSection(Section):
    """``[redis]``."""

    url: Annotated[str, Field(repr=False)] = "redis://localhost:6379/0"
    """May hold a password: show ``safe_url`` instead."""
    flush_interval: Seconds = 0.002
    max_backlog: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        from cache.delivery.connections import connector

        # The value may have a password in it, so no message repeats it.
        try:
            parts = urlsplit(value)
            host = parts.hostname
            sentinel = parts.scheme in {"redis+sentinel", "rediss+sentinel"}
            if not sentinel:
                _ = parts.port  # Raises ValueError for what is no port.
        except ValueError:
            raise ValueError('must be a URL such as "redis://localhost:6379/0"') from None
        steps = parts.path.strip("/").split("/")
        if parts.scheme == "unix":
            if not parts.path.startswith("/") or host:
                raise ValueError('must name the socket\'s whole path: "unix:///run/redis.sock"')
            return value
        if parts.scheme not in {"redis", "rediss"} and not sentinel:
            raise ValueError('must begin with "redis://", "rediss://", "unix://" or "redis+sentinel://"')
        if not host:
            raise ValueError('names no host; write "redis://localhost:6379/0"')
        if sentinel and not steps.pop(0):
            raise ValueError('names no service; write "redis+sentinel://host:26379,other:26379/mymaster/0"')
        if "/".join(steps) and not "/".join(steps).isdigit():
            raise ValueError('must end with the number of a database, such as "/0"')
        connector(value, 1.0)  # Raises ValueError for unknown options and for files that do not exist.
        return value

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        parts = urlsplit(self.url)
        credentials, at, address = parts.netloc.rpartition("@")
        user = credentials.partition(":")[0]
        masked = f"{user}:***@" if ":" in credentials else f"{user}{at}"
        # The query may have a password in it too: redis-py reads ?password=….
        return urlunsplit((parts.scheme, masked + address, parts.path, "…" if parts.query else "", ""))


class CacheSection(Section):
    """``[cache]``."""

    before_commit: bool = False
    """Remove the keys a write may touch, and wait for Redis to confirm it, before the write's commit is forwarded."""
    statements: Annotated[int, Field(ge=16, le=10_000_000)] = 10_000
    """How many statements' plans each worker remembers."""


class AdminSection(Section):
    """``[admin]``."""

    listen: Annotated[Address | None, BeforeValidator(_optional_address)] = Address("127.0.0.1", 9432)
    """None ("off" in the file): no admin endpoint."""


class LogSection(Section):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class TableSection(Section):
    """One ``[[table]]`` entry as written; ``table_rules`` makes a ``TableRule`` of it."""

    name: str
    key: Columns
    value: Columns
    redis_key: str | None = None
    format: Literal["string", "hash", "json"] = "string"
    ttl: Timeout | None = None
    ttl_jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    max_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    database: Identifier | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        units.table_name(value)
        return value

    @field_validator("ttl")
    @classmethod
    def _ttl(cls, value: float | None) -> float | None:
        if value is not None and value < 0.001:
            raise ValueError("must be at least 1ms, the shortest time to live Redis knows")
        return value

    @model_validator(mode="after")
    def _one_value(self) -> TableSection:
        if self.format == "string" and len(self.value) > 1:
            names = ", ".join(self.value)
            raise ValueError(f'format = "string" holds one value column, not {names}: use "hash" or "json"')
        if self.ttl_jitter and self.ttl is None:
            raise ValueError("ttl_jitter shortens ttl, and there is none")
        return self

    @property
    def value_format(self) -> ValueFormat:
        """``format`` as the ``TableRule`` has it."""
        return ValueFormat(self.format)
