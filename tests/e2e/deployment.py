"""One database, one proxy and one Redis for a module of tests, and the comparison with which most of them end: which
keys are in Redis, and does each hold the value of its row in PostgreSQL?"""

import contextlib
import http.client
import itertools
import json
import time

import psycopg
import redis

from proxy.demo.servers import HOST, free_port
from tests.e2e.statement_client import StatementClient
from tests.fix_postgres import fresh_database
from tests.fix_proxy import Proxy, merged

CANONICAL = """
    SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1;
    SET bytea_output = 'hex'; SET synchronous_commit = off; SET search_path = public;
    SET lock_timeout = '5s';
"""
"""The settings that define the text in Redis. Commits do not wait for the disk, which these tests do not need."""
_logical_databases = itertools.cycle((15, 14, 13, 12))
"""Numbers of logical databases; tests/fix_redis.py counts from the other end. Two deployments may exist at once."""
_NUMBERS = (b"20", b"21", b"23", b"700", b"701", b"1700", b"26")
_JSON = (b"114", b"3802")


class Rule:
    """A `[[table]]` entry, and how a row becomes a key and a value, written independently of the proxy's code."""

    def __init__(self, entry):
        self.entry = entry
        self.table = entry["name"]
        self.keys = [entry["key"]] if isinstance(entry["key"], str) else list(entry["key"])
        self.values = [entry["value"]] if isinstance(entry["value"], str) else list(entry["value"])
        self.format = entry.get("format", "string")
        bare = self.table.rpartition(".")[2]
        self.template = entry.get("redis_key", bare + ":" + ":".join(f"{{{key}}}" for key in self.keys))

    @property
    def query(self):
        """The query for every row: key columns, value columns, and the OIDs of the value columns' types."""
        columns = ", ".join(quoted(name) for name in (*self.keys, *self.values))
        types = ", ".join(f"pg_typeof({quoted(name)})::oid" for name in self.values)
        return f"SELECT {columns}, {types} FROM {quoted_table(self.table)}"

    def expected(self, row):
        """The Redis key of a row and its value; None if the row has no key."""
        count = len(self.keys)
        key, values = row[:count], row[count : count + len(self.values)]
        if None in key:
            return None
        rendered = self.template.encode()
        for name, part in zip(self.keys, key, strict=True):
            encoded = part.replace(b"%", b"%25").replace(b":", b"%3A") if count > 1 else part
            rendered = rendered.replace(f"{{{name}}}".encode(), encoded)
        value = self.value(values, row[count + len(self.values) :])
        return None if value is None else (rendered, value)

    def value(self, values, types):
        if self.format == "string":
            return values[0]
        if self.format == "hash":
            return {
                name.encode(): one for name, one in zip(self.values, values, strict=True) if one is not None
            } or None
        named = zip(self.values, values, types, strict=True)
        return {name: _as_json(one, oid) for name, one, oid in named}


def _as_json(value, oid):
    if value is None:
        return None
    if oid == b"16":
        return value == b"t"
    if oid in _JSON or (oid in _NUMBERS and value not in (b"NaN", b"Infinity", b"-Infinity")):
        return json.loads(value)
    return value.decode()


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def quoted_table(name):
    schema, _, table = name.rpartition(".")
    return f"{quoted(schema or 'public')}.{quoted(table)}"


class Deployment:
    """`.proxy` and `.redis`. `.connect(…)` opens a session through the proxy; `.direct` is a session that does not pass
    through it, with which tests prepare and compare rows."""

    def __init__(self, postgres, redis_client, proxy, rules, database, stack, content):
        self.postgres, self.redis, self.proxy, self.database = postgres, redis_client, proxy, database
        self.rules = [Rule(entry) for entry in rules]
        self.content = content
        self._stack = stack
        self._session = None
        self.direct = stack.enter_context(StatementClient(postgres.host, postgres.port, database=database))
        self.direct.simple(CANONICAL)

    def connect(self, *, database=None, user="postgres", **parameters):
        """A session through the proxy."""
        client = StatementClient(
            self.proxy.host, self.proxy.port, database=database or self.database, user=user, **parameters
        )
        self._stack.callback(client.close)
        return client

    def session(self):
        """A session that tests share; a new one if a test left it within a transaction or with answers unread."""
        if self._session is None or not self._session.is_idle:
            if self._session is not None:
                self._session.close()
            self._session = self.connect()
        return self._session

    def psycopg(self, **parameters):
        """A psycopg connection through the proxy."""
        connection = psycopg.connect(self.proxy.dsn(), **{"autocommit": True} | parameters)
        self._stack.callback(connection.close)
        return connection

    def reset(self, *, warm):
        """Restore the original rows, not through the proxy. With `warm` every row has its key in Redis, otherwise none
        has."""
        answer = self.direct.simple(self.content)
        assert not answer.errors, answer
        kept = [key for key in self.redis.scan_iter(count=1000) if not key.startswith(b"rowtap:")]
        pipe = self.redis.pipeline(transaction=False)
        if kept:
            pipe.delete(*kept)
        if warm:
            for key, value in self.expected().items():
                self._write(pipe, key, value)
        pipe.execute()

    def _write(self, pipe, key, value):
        if isinstance(value, bytes):
            pipe.set(key, value)
        elif all(isinstance(name, bytes) for name in value):
            pipe.hset(key, mapping=value)
        else:
            pipe.set(key, json.dumps(value))

    def expected(self):
        """What Redis would hold if every row's key were present."""
        found: dict[bytes, object] = {}
        for rule in self.rules:
            answer = self.direct.simple(rule.query)
            assert not answer.errors, (rule.query, answer)
            found.update(pair for row in answer.rows if (pair := rule.expected(row)) is not None)
        return found

    def held(self):
        """What Redis holds, by key, without the keys of Rowtap itself."""
        keys = [key for key in self.redis.scan_iter(count=1000) if not key.startswith(b"rowtap:")]
        pipe = self.redis.pipeline(transaction=False)
        for key in keys:
            pipe.type(key)
        kinds = pipe.execute()
        for key, kind in zip(keys, kinds, strict=True):
            pipe.hgetall(key) if kind == b"hash" else pipe.get(key)
        return dict(zip(keys, pipe.execute(), strict=True))

    def check(self):
        """Fail if a key differs from its row in PostgreSQL. Returns the keys that are present."""
        expected, held = self.expected(), self.held()
        json_keys = {key for key, value in expected.items() if isinstance(value, dict) and any(map(_is_str, value))}
        for key in json_keys & held.keys():
            held[key] = json.loads(held[key])
        stale = {key: (value, expected.get(key)) for key, value in held.items() if value != expected.get(key)}
        assert not stale, f"Redis differs from PostgreSQL (key: Redis, PostgreSQL): {stale}"
        return {key.decode() for key in held}

    def settle_and_check(self):
        """Wait until every change observed is in Redis, then `check`."""
        self.settle()
        return self.check()

    def settle(self, timeout=10.0):
        """`Proxy.settle` for a proxy with one worker: it has seen an answer before it can be asked for its status, so
        one status of 0 suffices."""
        deadline = time.monotonic() + timeout
        while self.pending():
            assert time.monotonic() < deadline, f"changes pending for {timeout} s"
            time.sleep(0.001)

    def pending(self):
        connection = http.client.HTTPConnection(self.proxy.admin_host, self.proxy.admin_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/status")
            return json.loads(connection.getresponse().read())["pending_changes"]

    def counts(self, table):
        """The counts of one table in /status."""
        tables = self.proxy.status()["tables"]
        return next(counts for label, counts in tables.items() if label.endswith(table))

    def wait_until(self, condition, timeout=10.0):
        """Wait until `condition()` is true: for events without an answer, such as a lost connection."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"the condition did not hold within {timeout} s"
            time.sleep(0.01)


def _is_str(value):
    return isinstance(value, str)


def wait_until_ready(proxy, timeout=10.0):
    """Wait until /readyz answers 200: before Redis is connected, reads fill nothing."""
    deadline = time.monotonic() + timeout
    while proxy.get("/readyz")[0] != 200:
        assert time.monotonic() < deadline, proxy.get("/readyz")
        time.sleep(0.01)


def wait_until_learned(proxy, database, timeout=20.0):
    """Open sessions until one of them has sent the catalog query. The first does, unless the machine is so busy that
    the query takes too long."""
    deadline = time.monotonic() + timeout
    while "worker learns the catalog" not in proxy.log_text():
        assert time.monotonic() < deadline, proxy.log_text()
        with StatementClient(proxy.host, proxy.port, database=database) as session:
            session.simple("SELECT 1")


_numbers = itertools.count(1)


@contextlib.contextmanager
def deploy(postgres, valkey, directory, *, schema, rules, content="SELECT 1", config=None, learned=True):
    """A `Deployment` whose database has `schema`; `content` is the SQL with which `reset` restores the rows."""
    with contextlib.ExitStack() as stack:
        if not valkey.running:
            valkey.start()
        valkey.resume()
        url = f"{valkey.url}/{next(_logical_databases)}"
        client = stack.enter_context(redis.Redis.from_url(url))
        client.flushdb()
        database = stack.enter_context(fresh_database(postgres))
        with psycopg.connect(postgres.dsn(database), autocommit=True) as connection:
            connection.execute(schema)
        settings = {
            "proxy": {"listen": f"{HOST}:{free_port()}", "shutdown_timeout": "3s"},
            "postgres": {"host": HOST, "port": postgres.port, "database": database},
            "redis": {"url": url},
            "admin": {"listen": f"{HOST}:{free_port()}"},
            "table": list(rules),
        }
        proxy = Proxy(directory / f"config-{next(_numbers)}.toml", merged(settings, config or {}))
        stack.callback(proxy.finish)
        proxy.start()
        wait_until_ready(proxy)
        if learned:
            wait_until_learned(proxy, database)
        with contextlib.ExitStack() as sessions:
            yield Deployment(postgres, client, proxy, rules, database, sessions, content)
        assert proxy.sessions_blinded() == 0, proxy.log_text()
