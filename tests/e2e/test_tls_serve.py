"""TLS as an operator configures it: files named in config.toml, clients of every kind, reloads, cancel requests."""

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import psycopg
import pytest

from protocol import codes, frontend, startup
from proxy.demo.servers import HOST
from tests.e2e import programs
from tests.e2e.processes import wait_until
from tests.fix_postgres import make_certificate

pytestmark = pytest.mark.measured

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
SECURE = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
PASSWORD = {"user": "scram_user", "password": "secret"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A certificate for Rowtap, different from PostgreSQL's."""
    return make_certificate(tmp_path_factory.mktemp("own"), "own")


def section(found, **options):
    return {"tls": {"cert": str(found.cert), "key": str(found.key)} | options}


@pytest.fixture
def rowtap_tls(rowtap, postgres_tls, database_tls):
    """The factory `rowtap`, with a TLS connection to `postgres_tls`."""

    def start(tables=(), proxy=None, env=None, **options):
        settings = {"host": HOST, "port": postgres_tls.port, "database": database_tls, "sslmode": "require"}
        return rowtap(tables, {"proxy": proxy or {}, "postgres": settings | options}, env=env)

    return start


def certificate(proxy):
    """The certificate a client receives, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((proxy.host, proxy.port), 10) as plain:
        plain.sendall(bytes(startup.SSLRequest()))
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain) as secure:
            return secure.getpeercert(binary_form=True)


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text())


# Clients.


def test_session_over_tls_is_captured(rowtap, files, connect, redis_client):
    direct = connect()
    direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    direct.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 500) AS n")
    proxy = rowtap([USERS], {"proxy": section(files)})
    with proxy.connect(sslmode="verify-full", sslrootcert=str(files.ca)) as client:
        assert client.pgconn.ssl_in_use
        assert len(client.execute("SELECT id, name FROM users").fetchall()) == 500
        client.execute("UPDATE users SET name = 'new' WHERE id = 7")
        assert client.execute("SELECT repeat('x', 5000000)").fetchone() == ("x" * 5_000_000,)
        proxy.settle()
    assert redis_client.get("users:7") == b"new"
    assert redis_client.get("users:500") == b"user 500"


@pytest.mark.skipif(psycopg.pq.version() < 170_000, reason="sslnegotiation came with libpq 17")
@pytest.mark.parametrize("negotiation", ["direct", "postgres"])
def test_client_may_start_tls_directly_or_by_ssl_request(rowtap, files, negotiation):
    proxy = rowtap(config={"proxy": section(files)})
    words = {"sslmode": "verify-full", "sslrootcert": str(files.ca), "sslnegotiation": negotiation}
    with proxy.connect(**words) as client:
        assert client.pgconn.ssl_in_use
        assert client.execute("SELECT 1").fetchone() == (1,)
    plain = rowtap()
    with pytest.raises(psycopg.OperationalError):
        plain.connect(**words)


def test_client_without_tls_is_refused_when_tls_is_required(rowtap, files):
    proxy = rowtap(config={"proxy": section(files, required=True)})
    with pytest.raises(psycopg.OperationalError, match="connection requires TLS"):
        proxy.connect(sslmode="disable")
    assert 'rowtap_connections_refused_total{reason="28000"} 1.0' in proxy.get("/metrics")[1]
    with proxy.connect(sslmode="require") as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_client_without_the_required_certificate_is_refused(rowtap, files):
    proxy = rowtap(config={"proxy": section(files, ca=str(files.ca), required=True)})
    with pytest.raises(psycopg.OperationalError):
        proxy.connect(sslmode="require")
    with_certificate = {"sslmode": "require", "sslcert": str(files.cert), "sslkey": str(files.key)}
    with proxy.connect(**with_certificate) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


# Keys.


@pytest.fixture(scope="module")
def encrypted(files, tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    path = tmp_path_factory.mktemp("encrypted") / "key.pem"
    command = ["openssl", "rsa", "-aes256", "-in", files.key, "-out", path, "-passout", "pass:opened"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def test_encrypted_key_needs_its_passphrase_and_never_logs_it(rowtap, rowtap_command, files, encrypted):
    words = {"cert": str(files.cert), "key": str(encrypted)}
    listen = {"listen": f"{HOST}:0"}
    admin = {"listen": "off"}
    for tls, message in (
        (words, "is encrypted; set proxy.tls.passphrase"),
        (words | {"passphrase": "wrong"}, "proxy.tls.passphrase: does not open"),
    ):
        done = rowtap_command("serve", config={"proxy": listen | {"tls": tls}, "admin": admin})
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert "wrong" not in done.stderr
    proxy = rowtap(config={"proxy": {"tls": words}}, env={"ROWTAP_PROXY__TLS__PASSPHRASE": "opened"})
    with proxy.connect(sslmode="verify-full", sslrootcert=str(files.ca)) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert "opened" not in proxy.log_text()


# Reload.


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_replaces_the_certificate_unless_the_new_files_are_unusable(rowtap, files, tmp_path, workers):
    cert, key = tmp_path / "server.crt", tmp_path / "server.key"
    shutil.copy(files.cert, cert)
    shutil.copy(files.key, key)
    proxy = rowtap(config={"proxy": {"workers": workers, "tls": {"cert": str(cert), "key": str(key)}}})
    wait_until(lambda: certificate(proxy) == der(files.cert))
    with proxy.connect(sslmode="require") as client:
        other = make_certificate(tmp_path, "other")
        shutil.copy(other.cert, cert)
        shutil.copy(other.key, key)
        proxy.signal(signal.SIGHUP)

        def renewed():
            return {certificate(proxy) for _ in range(8)} == {der(other.cert)}

        wait_until(renewed, why="the old certificate is still shown")
        # An unusable file changes nothing; open sessions continue.
        key.write_text("not a key")
        proxy.signal(signal.SIGHUP)
        # A worker that was still reloading for the first signal may refuse the file twice.
        wait_until(lambda: proxy.log_text().count("worker refuses the new configuration") >= workers)
        assert renewed()
        assert client.execute("SELECT 1").fetchone() == (1,)
    with proxy.connect(sslmode="verify-full", sslrootcert=str(other.ca)) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


# TLS to the server, and on both connections.


def test_client_without_tls_is_not_offered_channel_binding(rowtap_tls, postgres_tls):
    proxy = rowtap_tls()
    with proxy.connect(sslmode="disable", **PASSWORD) as client:
        assert client.execute(SECURE).fetchone() == (True,)
    # psql of the server's version uses another libpq.
    line = (
        f"host={proxy.host} port={proxy.port} user=scram_user password=secret dbname={proxy.database} sslmode=disable"
    )
    done = subprocess.run(
        [postgres_tls.bindir / "psql", "-X", "-At", "-c", SECURE, line], capture_output=True, text=True, check=True
    )
    assert done.stdout == "t\n"


def test_channel_binding_works_with_the_servers_own_certificate(rowtap_tls, postgres_tls):
    proxy = rowtap_tls(proxy=section(postgres_tls.tls))
    words = {"sslmode": "verify-full", "sslrootcert": str(postgres_tls.tls.ca), "channel_binding": "require"}
    with proxy.connect(**words, **PASSWORD) as client:
        assert client.execute(SECURE).fetchone() == (True,)
    assert "another certificate" not in proxy.log_text()


def test_channel_binding_fails_with_another_certificate_unless_it_is_disabled(rowtap_tls, files):
    proxy = rowtap_tls(proxy=section(files))
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        proxy.connect(sslmode="require", **PASSWORD)
    assert proxy.log_text().count("channel_binding=disable") == 1
    for mode, binding in (("require", "disable"), ("disable", "prefer")):
        with proxy.connect(sslmode=mode, channel_binding=binding, **PASSWORD) as client:
            assert client.execute(SECURE).fetchone() == (True,)


def test_wrong_password_gets_the_servers_error(rowtap_tls):
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "scram_user"'):
        rowtap_tls().connect(sslmode="disable", user="scram_user", password="wrong")


def test_server_certificate_is_verified_against_sslrootcert(rowtap_tls, postgres_tls, files):
    good = rowtap_tls(sslmode="verify-full", sslrootcert=str(postgres_tls.tls.ca))
    assert good.connect().execute(SECURE).fetchone() == (True,)
    bad = rowtap_tls(sslmode="verify-full", sslrootcert=str(files.ca))
    with pytest.raises(psycopg.OperationalError, match="its certificate was not accepted"):
        bad.connect()


def test_server_certificate_is_verified_against_the_systems_authorities(rowtap_tls, postgres_tls, files):
    for trusted, accepted in ((postgres_tls.tls.ca, True), (files.ca, False)):
        proxy = rowtap_tls(sslmode="verify-full", sslrootcert="system", env={"SSL_CERT_FILE": str(trusted)})
        if accepted:
            assert proxy.connect().execute(SECURE).fetchone() == (True,)
        else:
            with pytest.raises(psycopg.OperationalError, match="its certificate was not accepted"):
                proxy.connect()


def test_session_with_tls_to_the_server_is_captured(rowtap_tls, postgres_tls, database_tls, redis_client, files):
    with psycopg.connect(postgres_tls.dsn(database_tls), autocommit=True) as direct:
        direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
        direct.execute("INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 500) AS n")
    proxy = rowtap_tls([USERS], proxy=section(files))
    for mode in ("disable", "require"):
        with proxy.connect(sslmode=mode) as client:
            assert len(client.execute("SELECT id, name FROM users").fetchall()) == 500
            client.execute("UPDATE users SET name = %s WHERE id = 7", [mode])
            assert client.execute("SELECT length(%s)", ["x" * 3_000_000]).fetchone() == (3_000_000,)
            proxy.settle()
        assert redis_client.get("users:7") == mode.encode()
        assert redis_client.get("users:8") == b"user 8"
    programs.run("pgbench", "-i", "-q", "-s", "1", port=proxy.port, database=proxy.database)


@pytest.mark.parametrize("workers", [1, 2])
def test_cancel_request_reaches_a_server_that_requires_tls(rowtap_tls, postgres_tls, database_tls, files, workers):
    """Whichever worker receives it, and also when the client sends it without TLS although TLS is required."""
    hba = postgres_tls.data_dir / "pg_hba.conf"
    before = hba.read_text()
    with psycopg.connect(postgres_tls.dsn(database_tls), autocommit=True) as watch:
        try:
            hba.write_text(f"hostnossl {database_tls} all all reject\n" + before)
            watch.execute("SELECT pg_reload_conf()")
            proxy = rowtap_tls(proxy=section(files, required=True) | {"workers": workers})
            for _ in range(2 * workers):
                with proxy.connect(sslmode="require") as client:
                    for cancel in (client.cancel_safe, client.cancel):
                        check_cancel(client, cancel, watch)
        finally:
            hba.write_text(before)
            watch.execute("SELECT pg_reload_conf()")


def check_cancel(client, cancel, watch):
    active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"

    def cancel_when_active():
        wait_until(lambda: watch.execute(active, [client.info.backend_pid]).fetchone() == (1,))
        cancel()

    thread = threading.Thread(target=cancel_when_active)
    thread.start()
    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        client.execute("SELECT pg_sleep(20)")
    assert time.monotonic() - began < 10
    thread.join()
    assert client.execute("SELECT 1").fetchone() == (1,)


def test_statement_ends_when_its_client_disconnects_with_tls_on_both_sides(
    rowtap_tls, postgres_tls, database_tls, files
):
    proxy = rowtap_tls([USERS], proxy=section(files))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    pairs = ((b"user", b"postgres"), (b"database", database_tls.encode()))
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(psycopg.connect(postgres_tls.dsn(database_tls), autocommit=True))
        plain = stack.enter_context(socket.create_connection((proxy.host, proxy.port), 10))
        client = stack.enter_context(context.wrap_socket(plain))
        client.sendall(bytes(startup.StartupMessage(codes.PROTOCOL_3_0, pairs)))
        seen = b""
        while not seen.endswith(b"Z\0\0\0\5I"):
            seen += client.recv(65536)
        client.sendall(bytes(frontend.Query(b"SELECT pg_sleep(3600)")))
        busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(3600)%'"
        wait_until(lambda: watch.execute(busy).fetchone() == (1,))
        # Without TLS close_notify, as when the process is killed.
        socket.socket(fileno=client.detach()).close()
        wait_until(lambda: watch.execute(busy).fetchone() == (0,), 5)
    wait_until(lambda: proxy.status()["sessions"] == 0)
