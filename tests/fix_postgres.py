"""PostgreSQL for the tests: one cluster for a test session, one new database for each test.

Each cluster has a role for every way to authenticate, with the password `secret`: `scram_user`, `md5_user`,
`password_user`. Every other role authenticates by `trust`.
"""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from proxy.demo.servers import EmbeddedError, Postgres, TLSFiles

PASSWORD = "secret"
ROLES = {"scram_user": "scram-sha-256", "md5_user": "md5", "password_user": "password"}
SETTINGS = {
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "max_prepared_transactions": "50",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
}
HBA = [
    line
    for role, method in ROLES.items()
    for line in (f"local all {role} {method}", f"host all {role} 127.0.0.1/32 {method}")
]
CERTIFICATE = """
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
"""
_numbers = itertools.count(1)


class PostgresTLS(Postgres):
    """A PostgreSQL with TLS, whose certificate is made here."""

    def __init__(self, bindir: Path) -> None:
        super().__init__(bindir=bindir, settings=SETTINGS, hba=HBA)
        self.tls = make_certificate(self.directory)
        files = {"ssl_cert_file": self.tls.cert, "ssl_key_file": self.tls.key, "ssl_ca_file": self.tls.ca}
        self.settings |= {"ssl": "on"} | {name: str(path) for name, path in files.items()}


@pytest.fixture(scope="session")
def postgres(missing):
    """The PostgreSQL of the test session, a `proxy.demo.servers.Postgres`. A test may stop or kill it; it is started
    again before the next."""
    try:
        server = Postgres(settings=SETTINGS, hba=HBA)
    except EmbeddedError as error:
        missing(str(error))
    with server:
        create_roles(server)
        yield server


@pytest.fixture
def database(postgres):
    """The name of a new, empty database of `postgres`; dropped with all its connections when the test ends."""
    with fresh_database(postgres) as name:
        yield name


@pytest.fixture
def connect(postgres, database):
    """`connect(**parameters)`: a psycopg connection directly to `database`, in autocommit mode unless a parameter says
    otherwise."""
    with contextlib.ExitStack() as stack:
        yield connector(stack, lambda: postgres.dsn(database))


@pytest.fixture(scope="session")
def postgres_tls():
    """A PostgreSQL with TLS. The one in the wheel is built without, so the test is skipped unless the machine has
    another.

    Has the same roles as `postgres`, and `.tls`: the paths of certificate, key and authority. The certificate is for
    localhost and 127.0.0.1. Sessions are accepted with and without TLS.
    """
    bindir = find_tls_bindir()
    if bindir is None:
        pytest.skip("no PostgreSQL built with OpenSSL on this machine (on Debian: apt install postgresql)")
    with PostgresTLS(bindir) as server:
        create_roles(server)
        yield server


@pytest.fixture
def database_tls(postgres_tls):
    """The name of a new, empty database of `postgres_tls`."""
    with fresh_database(postgres_tls) as name:
        yield name


@pytest.fixture(scope="session")
def postgres15(postgres_tls):
    """`postgres_tls` if it is PostgreSQL 15 (the version in Debian 12); otherwise the test is skipped."""
    if not postgres_tls.version.startswith("15."):
        pytest.skip(f"this machine's PostgreSQL is {postgres_tls.version}, not 15")
    return postgres_tls


@contextlib.contextmanager
def fresh_database(server):
    """A new database of that server, for the duration of the block. Used directly by tests that need two databases."""
    if not server.running:
        server.start()
    name = f"test_{next(_numbers)}"
    create = "CREATE DATABASE {} TEMPLATE template0"
    if not server.version.startswith("14."):
        create += " STRATEGY file_copy"  # measured: 12 to 18 ms, wal_log 15 to 60 ms
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL(create).format(sql.Identifier(name)))
    yield name
    if not server.running:
        server.start()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def connector(stack, dsn):
    """A function that opens psycopg connections to `dsn()`; `stack` closes them."""

    def connect(**parameters):
        connection = psycopg.connect(dsn(), **{"autocommit": True} | parameters)
        stack.callback(connection.close)
        return connection

    return connect


def create_roles(server):
    """Create the roles of ROLES, as superusers."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for role, method in ROLES.items():
            kind = "md5" if method == "md5" else "scram-sha-256"
            connection.execute(sql.SQL("SET password_encryption = {}").format(kind))
            create = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
            connection.execute(create.format(sql.Identifier(role), sql.Literal(PASSWORD)))


def find_tls_bindir():
    """The bin directory of the newest installed PostgreSQL that has OpenSSL, or None."""
    candidates = [Path(path) for path in os.environ.get("POSTGRES_TLS_BINDIR", "").split(os.pathsep) if path]
    for root, pattern in (
        ("/usr/lib/postgresql", "*/bin"),
        ("/usr", "pgsql-*/bin"),
        ("/opt/homebrew/opt", "postgresql@*/bin"),
        ("/usr/local/opt", "postgresql@*/bin"),
    ):
        found = Path(root).glob(pattern)
        candidates += sorted(found, key=lambda path: int((re.findall(r"\d+", str(path)) or ["0"])[-1]), reverse=True)
    return next((path for path in candidates if _has_openssl(path)), None)


def _has_openssl(bindir):
    if not (bindir / "initdb").exists() or not (bindir / "pg_config").exists():
        return False
    configure = subprocess.run([bindir / "pg_config", "--configure"], capture_output=True, text=True, check=False)
    return "openssl" in configure.stdout


def make_certificate(directory, name="server"):
    """A certificate for localhost and 127.0.0.1, and the authority that signed it, as `TLSFiles` in `directory`.

    Only the owner of the directory may read the key, which PostgreSQL requires.
    """
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    config = directory / "openssl.cnf"
    config.write_text(CERTIFICATE)
    files = TLSFiles(directory / f"{name}.crt", directory / f"{name}.key", directory / f"{name}-ca.crt")
    authority_key, request = directory / f"{name}-ca.key", directory / f"{name}.csr"
    new_key = ["-newkey", "rsa:2048", "-nodes", "-sha256", "-config", config]
    for command in (
        ["req", "-x509", *new_key, "-days", "2", "-subj", "/CN=Rowtap test authority", "-extensions", "authority",
         "-keyout", authority_key, "-out", files.ca],
        ["req", *new_key, "-subj", "/CN=localhost", "-keyout", files.key, "-out", request],
        ["x509", "-req", "-in", request, "-CA", files.ca, "-CAkey", authority_key, "-set_serial", str(next(_numbers)),
         "-days", "2", "-sha256", "-extfile", config, "-extensions", "server", "-out", files.cert],
    ):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    files.key.chmod(0o600)
    if os.geteuid() == 0:
        owner = directory.stat()
        os.chown(files.key, owner.st_uid, owner.st_gid)
    return files
