"""A *stage* is a database with a proxy in front of it; there is one for each kind of server and of TLS between them.

    @plain_and_tls                         # this test with a plain connection to the server, then with TLS
    def test_something(both): …

A stage whose server the machine lacks is skipped, with the reason its fixture gives.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from proxy.demo.servers import HOST, Postgres, free_port
from tests.fix_postgres import fresh_database
from tests.fix_proxy import Proxy

SCHEMA = """
    CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10, 2), data bytea, tags text[]);
    CREATE TABLE plain (id int, note text);
    CREATE TYPE mood AS ENUM ('calm', 'excited');
    CREATE FUNCTION shout(text) RETURNS text LANGUAGE plpgsql AS
        $$BEGIN RAISE NOTICE 'heard %', $1; RETURN upper($1); END$$;
"""
TABLE = {"name": "items", "key": "id", "value": "name"}

PLAIN, TLS, POSTGRES_15 = "plain_stage", "tls_stage", "stage15"
"""Names of the fixtures that `stage` chooses from."""

plain_and_tls = pytest.mark.parametrize(
    "stage", [pytest.param(PLAIN, id="plain"), pytest.param(TLS, id="tls")], indirect=True
)
on_postgres_15 = pytest.mark.parametrize("stage", [pytest.param(POSTGRES_15, id="PostgreSQL 15")], indirect=True)


@dataclass(frozen=True)
class Stage:
    """A server, a database in it, and a proxy in front of it that captures the table `items`."""

    server: Postgres
    database: str
    proxy: Proxy

    @property
    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The two addresses clients connect to: PostgreSQL's and the proxy's."""
        return (self.server.host, self.server.port), (self.proxy.host, self.proxy.port)

    def connect(self, **parameters: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A direct session in the database, which is not part of the comparison."""
        return psycopg.connect(self.server.dsn(self.database), autocommit=True, **parameters)


@contextlib.contextmanager
def start_stage(server, redis_url, directory, **backend):
    """A `Stage` for the duration of the block; `backend` is added to the proxy's [postgres] section."""
    with fresh_database(server) as database:
        config = {
            "proxy": {"listen": f"{HOST}:{free_port()}", "shutdown_timeout": "3s"},
            "postgres": {"host": HOST, "port": server.port, "database": database} | backend,
            "redis": {"url": redis_url},
            "admin": {"listen": f"{HOST}:{free_port()}"},
            "table": [TABLE],
        }
        stage = Stage(server, database, Proxy(directory / "config.toml", config))
        with stage.connect() as connection:
            connection.execute(SCHEMA)
        try:
            stage.proxy.start()
            yield stage
        finally:
            stage.proxy.finish()
