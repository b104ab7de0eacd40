"""The sockets of the proxy for its unit tests: a `Server` on uvloop in a thread, in front of a real PostgreSQL."""

import asyncio
import contextlib
import socket
import threading

import psycopg
import pytest
import uvloop

from proxy.config.sections import PostgresSection, ProxySection, TlsSection
from proxy.config.units import Address
from proxy.net import listeners
from proxy.net.server import Server


class Fault(Exception):  # noqa: N818 - the word of the tests for what they inject
    """A mistake that a test makes on purpose."""


class Recorder:
    """An observer that keeps what it is shown. It has a query for each element of `queries`.

    Once `failing` is the name of a method or attribute, using that raises `Fault`; several names are separated by a
    space.
    """

    before_commit = False
    before_forwarding: object = None
    answers_due = True
    aligned = True
    bulk = True

    def __init__(self, queries=(), failing=""):
        self.calls = []
        self.queries = list(queries)
        self.answers = []
        self.reasons = []
        self.idle = True
        self.outstanding = False
        self.blinded = False
        self.terminated = False
        self.ended = threading.Event()
        self.failing = failing

    def __getattribute__(self, name):
        if name in object.__getattribute__(self, "__dict__").get("failing", "").split():
            raise Fault(name)
        return object.__getattribute__(self, name)

    @property
    def over_limit(self):
        return False

    @property
    def between_messages(self):
        return self.aligned

    def is_bulk(self, data):
        return self.bulk

    def message_rest(self, data):
        return len(data)

    def desynchronize(self, reason):
        self.reasons.append(reason)
        self.blinded = True

    def frontend(self, data):
        self.calls.append(("frontend", data))
        self.terminated = data.endswith(b"X\0\0\0\4")
        self.outstanding, self.idle = data[:1] != b"X", False

    def backend(self, data):
        self.calls.append(("backend", data))
        if data[-6:-1] == b"Z\0\0\0\5":
            self.outstanding, self.idle = False, data[-1:] == b"I" and not self.terminated

    def wants_catalog(self):
        return Query(self, self.queries.pop(0)) if self.idle and self.queries else None

    def answer(self, payload):
        self.answers.append(payload)

    def closed(self, *, backend_ended):
        self.calls.append(("closed", backend_ended))
        self.ended.set()

    def seen(self, direction):
        return b"".join(data for name, data in self.calls if name == direction)

    @property
    def closings(self):
        return [argument for name, argument in self.calls if name == "closed"]


class Query:
    """What a `Recorder` wants to know; reading `query` or giving the answer fails where the recorder's does."""

    def __init__(self, recorder, text):
        self.recorder, self.text = recorder, text

    @property
    def query(self):
        if self.recorder.failing == "query":
            raise Fault("query")
        return self.text

    def answer(self, payload):
        self.recorder.answer(payload)


class RunningServer:
    """A `Server` and the thread its event loop runs in.

    `failures` is what went to the loop's exception handler, `internal_errors` what the server reported as faults of
    ours. Both must be empty when it stops, so a test that injects a fault takes it out with `fault()`.
    """

    def __init__(self, proxy, postgres, observe):
        self.failures: list[dict[str, object]] = []
        self.internal_errors: list[tuple[str, BaseException]] = []
        self.observed = []
        self._loop = uvloop.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.failures.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listeners = listeners.listen(proxy.listen)
        self.port = self._listeners[0].getsockname()[1] if self._listeners[0].family != socket.AF_UNIX else None
        self.server = self.call(self._make, proxy, postgres, observe)
        self.call(self.server.start)

    def _make(self, proxy, postgres, observe):
        def watched(*facts):
            observer = observe(*facts)
            self.observed.append((facts, observer))
            return observer

        def report(where, error):
            self.internal_errors.append((where, error))

        return Server(proxy, postgres, watched, self._listeners, on_internal_error=report)

    def fault(self):
        """The one fault that was reported."""
        assert self.wait(lambda _server: self.internal_errors)
        (reported,) = self.internal_errors
        self.internal_errors.clear()
        return reported

    def call(self, function, *arguments):
        """Run a plain function in the loop's thread."""

        async def run():
            return function(*arguments)

        return self.run(run())

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def dsn(self, dbname, **parameters):
        words = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": dbname} | parameters
        return " ".join(f"{name}={value}" for name, value in words.items())

    def connect(self, dbname, *, autocommit=True, **parameters):
        return psycopg.connect(self.dsn(dbname, **parameters), autocommit=autocommit)

    def dial(self):
        """A bare socket to the proxy."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait(self, condition, seconds=10.0):
        """Wait until `condition(server)` is true; says whether it became so."""

        async def until():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not condition(self.server):
                        await asyncio.sleep(0.005)
            return condition(self.server)

        return self.run(until())

    def stop(self):
        try:
            self.run(self.server.close())
            listeners.close(self._listeners)
            assert not self.server._tasks
            assert self.server.traffic.sessions == 0
            assert not self.failures
            assert not self.internal_errors
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


@pytest.fixture
def serve(postgres):
    """A factory of running servers: `serve(observe=…, postgres={…}, tls={…}, **proxy settings)`."""
    running = []

    def start(observe=lambda *_facts: None, postgres=postgres, settings=None, tls=None, **options):
        options = {"listen": (Address("127.0.0.1", 0),)} | options
        proxy = ProxySection.model_construct(**ProxySection().model_dump() | options)
        if tls is not None:
            section = TlsSection.model_construct(**{"ca": None, "required": False, "passphrase": None} | tls)
            proxy = proxy.model_copy(update={"tls": section})
        backend = PostgresSection().model_copy(update={"host": "127.0.0.1", "port": postgres.port} | (settings or {}))
        found = RunningServer(proxy, backend, observe)
        running.append(found)
        return found

    yield start
    with contextlib.ExitStack() as stack:
        for server in running:
            stack.callback(server.stop)


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def backends(connect):
    """`backends()`: how many other backends work on the test's database."""
    watcher = connect()

    def count():
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return watcher.execute(query).fetchone()[0]

    return count
