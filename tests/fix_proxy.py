"""The proxy for the tests: `python -m proxy serve` as a process of its own, with a config.toml of its own.

    proxy = rowtap(tables=[USERS])          # in front of `postgres`, writing to `redis_url`
    proxy.connect().execute("SELECT …")     # psycopg, through it
    proxy.settle()                          # every change observed so far is in Redis

At the end of each test its proxies must stop on SIGTERM with status 0 and must have logged no traceback.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy.demo.reaper import REAPER
from proxy.demo.servers import HOST, free_port
from tests.fix_postgres import connector

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 20.0
STOP_TIMEOUT = 20.0
CRASH_MARKS = re.compile(r"Traceback \(most recent|was never (?:retrieved|awaited)|Fatal Python error")


@pytest.fixture
def rowtap(tmp_path, postgres, database, redis_url):
    """A factory of running proxies: `rowtap(tables=[…], config={…}, args=(…), env={…}, ready=True) -> Proxy`.

    `config` is merged, section by section, over a configuration that names `postgres`, `database`, `redis_url` and free
    ports; a value of None removes a key.
    """
    proxies: list[Proxy] = []

    def start(tables=(), config=None, *, args=(), env=None, ready=True):
        defaults = {
            "proxy": {"listen": f"{HOST}:{free_port()}", "shutdown_timeout": "3s"},
            "postgres": {"host": HOST, "port": postgres.port, "database": database},
            "redis": {"url": redis_url},
            "admin": {"listen": f"{HOST}:{free_port()}"},
            "table": list(tables),
        }
        path = tmp_path / f"config-{len(proxies)}.toml"
        proxy = Proxy(path, merged(defaults, config or {}), args=args, env=env, user=postgres.user)
        proxies.append(proxy)
        proxy.start(ready=ready)
        return proxy

    try:
        yield start
    finally:
        with contextlib.ExitStack() as stack:
            for proxy in proxies:
                stack.callback(proxy.finish)


@pytest.fixture
def rowtap_command(tmp_path):
    """`rowtap_command("explain", "SELECT …", config={…} or TOML text)`: runs a command until it ends."""

    def run(*args, config=None, env=None, timeout=30):
        command = [sys.executable, "-m", "proxy", *map(str, args)]
        if config is not None:
            path = tmp_path / "command.toml"
            path.write_text(config if isinstance(config, str) else toml(config))
            command += ["--config", str(path)]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | (env or {}),
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


class Proxy:
    """One `serve` process. Clients connect to `.host`, `.port` and `.database`; `.log_path` holds all its output."""

    def __init__(self, path, config, *, args=(), env=None, user="postgres"):
        self.config_path, self.config = path, config
        self.log_path = path.with_suffix(".log")
        self.user, self.database = user, config["postgres"]["database"]
        self._args, self._env = tuple(args), dict(env or {})
        listen = config["proxy"]["listen"]
        self.host, self.port = _address(listen[0] if isinstance(listen, list) else listen)
        self.admin_host, self.admin_port = _address(config["admin"]["listen"])
        self.admin_url = f"http://{self.admin_host}:{self.admin_port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        self._killed = False
        self.faults_injected = False
        """Set by a test whose faults log tracebacks."""
        self.connect = connector(self._stack, self.dsn)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process started most recently."""
        assert self._process is not None, "the proxy has not been started"
        return self._process

    @property
    def pid(self):
        """The process id of the running proxy (its supervisor, with several workers)."""
        return self.process.pid

    def dsn(self, dbname=None, **parameters):
        """A libpq connection string through the proxy."""
        words = {"host": self.host, "port": self.port, "user": self.user, "dbname": dbname or self.database}
        return " ".join(f"{name}={value}" for name, value in (words | parameters).items())

    def url(self, dbname=None):
        """The same as `dsn`, as a URL, for drivers that need one."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{dbname or self.database}"

    def write_config(self, **sections):
        """Merge these sections into the configuration and write the file. The proxy reads it on SIGHUP or at its next
        start."""
        self.config = merged(self.config, sections)
        self.config_path.write_text(toml(self.config))

    def start(self, *, ready=True):
        """Start the process. With `ready`, wait until /healthz answers 200, and fail with the log if it does not."""
        self.write_config()
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(self.config_path), *self._args]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"} | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._killed = False
        REAPER.adopt_process(self.process.pid, signal.SIGTERM)
        if ready:
            self.wait_until_healthy()

    def wait_until_healthy(self, timeout=START_TIMEOUT):
        """Wait until /healthz answers 200."""
        deadline = time.monotonic() + timeout
        while not self._healthy():
            if self.process.poll() is not None:
                pytest.fail(f"the proxy ended with status {self.process.returncode}:\n{self.log_text()}")
            if time.monotonic() > deadline:
                pytest.fail(f"the proxy was not healthy within {timeout} s:\n{self.log_text()}")
            time.sleep(0.02)

    def get(self, path):
        """GET `path` from the admin address: (status, text)."""
        connection = http.client.HTTPConnection(self.admin_host, self.admin_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def status(self):
        """The JSON of /status, decoded."""
        status, text = self.get("/status")
        assert status == 200, text
        return json.loads(text)

    def sessions_blinded(self):
        """How many sessions have gone blind since the proxy was started."""
        status, text = self.get("/metrics")
        assert status == 200, text
        (value,) = re.findall(r"^rowtap_sessions_blinded_total (\S+)$", text, re.MULTILINE)
        return int(float(value))

    def settle(self, timeout=10.0):
        """Wait until every change observed so far is in Redis; fail when their number does not change for `timeout`
        seconds.

        The time begins again whenever the number changes: a slow machine does not fail a test.
        """
        pending, since, zeros = None, time.monotonic(), 0
        while zeros < 2:
            now = self.status()["pending_changes"]
            zeros = zeros + 1 if now == 0 else 0
            if now != pending:
                pending, since = now, time.monotonic()
            elif now and time.monotonic() - since > timeout:
                pytest.fail(f"{now} changes pending and none applied for {timeout} s:\n{self.log_text()[-4000:]}")
            time.sleep(0.005)

    def signal(self, signum):
        """Send a signal to the process."""
        self.process.send_signal(signum)

    def wait(self, timeout=STOP_TIMEOUT):
        """Wait for the process to end; returns its exit status."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._kill_group()
            pytest.fail(f"the proxy did not end within {timeout} s:\n{self.log_text()[-4000:]}")
        REAPER.release_process(self.process.pid)
        return status

    def stop(self, timeout=STOP_TIMEOUT):
        """Send SIGTERM; returns the exit status. Connections of `connect` are closed first; others have
        shutdown_timeout to end."""
        self._stack.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait(timeout)

    def kill(self):
        """Send SIGKILL to the whole process group, workers included: nothing is drained."""
        self._killed = True
        self._kill_group()

    def log_text(self):
        """All output of the proxy, of all its starts."""
        return self.log_path.read_text(errors="replace")

    def finish(self):
        """Stop the proxy at the end of a test and check that it stopped with status 0 and logged no traceback."""
        self._stack.close()
        if self._process is None:
            return
        if not self._killed:
            status = self.stop()
            assert status == 0, f"the proxy ended with status {status}:\n{self.log_text()[-4000:]}"
        assert self.faults_injected or not CRASH_MARKS.search(self.log_text()), self.log_text()[-8000:]

    def _kill_group(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        REAPER.release_process(self.process.pid)

    def _healthy(self):
        try:
            return self.get("/healthz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def merged(base, over):
    """`base` with the values of `over`, section by section; None removes a key."""
    result = dict(base)
    for name, value in over.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def toml(tables, prefix=""):
    """The TOML text of nested dictionaries; a list of dictionaries becomes an array of tables."""
    lines, nested = [], []
    for name, value in tables.items():
        if isinstance(value, dict):
            nested.append(f"[{prefix}{name}]\n" + toml(value, f"{prefix}{name}."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            nested += [f"[[{prefix}{name}]]\n" + toml(entry, f"{prefix}{name}.") for entry in value]
        elif isinstance(value, list) and not value:
            continue
        else:
            # JSON's strings, numbers, booleans and lists of them are valid TOML.
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines + nested)


def _address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
