"""TLS on each leg and on both: sslmode's meanings, channel binding, direct TLS, files that cannot be used."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import warnings

import asyncpg
import psycopg
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from protocol import codes, frontend, startup
from proxy.config.sections import PostgresSection, TlsSection
from proxy.net import tls
from tests.fix_postgres import make_certificate

SECURE = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A certificate that is not the server's."""
    return make_certificate(tmp_path_factory.mktemp("other"), "other")


def section(files, **options):
    return {"cert": files.cert, "key": files.key} | options


def greeting(database):
    pairs = ((b"user", b"postgres"), (b"database", database.encode()))
    return bytes(startup.StartupMessage(codes.PROTOCOL_3_0, pairs))


def trusting(**options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if "alpn" in options:
        context.set_alpn_protocols([options["alpn"]])
    return context


# The client's leg.


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
def test_client_with_any_sslmode_works_in_front_of_a_plain_server(serve, database, other, mode):
    server = serve(tls=section(other))
    with server.connect(database, sslmode=mode, sslrootcert=other.ca, user="scram_user", password="secret") as client:
        assert client.pgconn.ssl_in_use == (mode != "disable")
        assert client.execute("SELECT repeat('x', 1000000)").fetchone() == ("x" * 1_000_000,)
        assert client.execute(SECURE).fetchone() == (False,)


def test_client_without_tls_is_refused_where_it_is_required(serve, database, other):
    server = serve(tls=section(other, required=True))
    with pytest.raises(psycopg.OperationalError, match="connection requires TLS"):
        server.connect(database, sslmode="disable")
    with server.connect(database, sslmode="require") as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_client_that_requires_tls_is_told_there_is_none(serve, database):
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        serve().connect(database, sslmode="require")


def direct(server, context):
    raw = server.dial()
    return context.wrap_socket(raw, server_hostname="localhost")


def test_direct_tls_works_with_the_protocol_name(serve, database, other):
    with direct(serve(tls=section(other)), trusting(alpn="postgresql")) as client:
        client.sendall(greeting(database))
        assert client.recv(1) == b"R"


@pytest.mark.parametrize("options", [{}, {"alpn": "http/1.1"}])
def test_direct_tls_without_the_protocol_name_is_closed(serve, database, other, options):
    with (
        capture_logs() as lines,
        contextlib.suppress(ConnectionError, ssl.SSLError),
        direct(serve(tls=section(other)), trusting(**options)) as client,
    ):
        client.sendall(greeting(database))
        assert client.recv(1) == b""
    assert [line["event"] for line in lines] == ["connection refused"]


def test_old_tls_is_refused(serve, other):
    server = serve(tls=section(other))
    context = trusting(alpn="postgresql")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        direct(server, context)


def test_request_for_encryption_within_tls_is_refused(serve, other):
    server = serve(tls=section(other))
    with direct(server, trusting(alpn="postgresql")) as client:
        client.sendall(bytes(startup.SSLRequest()))
        assert b"unsupported frontend protocol 1234.5679" in client.recv(1000)


def test_broken_handshake_is_logged_in_one_line(serve, other):
    server = serve(tls=section(other))
    with capture_logs() as lines, server.dial() as client:
        client.sendall(bytes(startup.SSLRequest()))
        assert client.recv(1) == b"S"
        client.sendall(b"this is not TLS at all" * 3)
        with contextlib.suppress(ConnectionError):
            while client.recv(1000):
                pass
        assert server.wait(lambda server: not server._tasks)
    assert len(lines) == 1


def test_client_certificate_is_required_where_an_authority_is_configured(serve, database, other):
    server = serve(tls=section(other, ca=other.ca))
    with pytest.raises(psycopg.OperationalError):
        server.connect(database, sslmode="require")
    with server.connect(database, sslmode="require", sslcert=other.cert, sslkey=other.key) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_client_that_vanishes_with_tls_leaves_no_session(serve, database, other):
    server = serve(tls=section(other))
    client = direct(server, trusting(alpn="postgresql"))
    client.sendall(greeting(database))
    client.recv(1000)
    assert server.wait(lambda server: server.traffic.sessions == 1)
    socket.socket(fileno=client.detach()).close()
    assert server.wait(lambda server: server.traffic.sessions == 0)


# The backend's leg.


@pytest.mark.parametrize(
    ("mode", "secure"),
    [
        ("disable", False),
        ("allow", False),
        ("prefer", True),
        ("require", True),
        ("verify-ca", True),
        ("verify-full", True),
    ],
)
def test_client_without_tls_works_in_front_of_a_server_with_tls(serve, postgres_tls, database_tls, mode, secure):
    settings = {"sslmode": mode, "sslrootcert": postgres_tls.tls.ca if mode.startswith("verify") else None}
    server = serve(postgres=postgres_tls, settings=settings)
    with server.connect(database_tls, sslmode="disable", user="scram_user", password="secret") as client:
        assert client.execute(SECURE).fetchone() == (secure,)


def test_asyncpg_works_in_front_of_a_server_with_tls(serve, postgres_tls, database_tls):
    server = serve(postgres=postgres_tls, settings={"sslmode": "require"})

    async def work():
        client = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="scram_user", password="secret", database=database_tls, ssl=False
        )
        assert await client.fetchval(SECURE) is True
        await client.close()

    asyncio.run(work())


def test_server_without_tls_is_refused_by_the_modes_that_demand_it(serve, database):
    for mode in ("disable", "allow", "prefer"):
        with serve(settings={"sslmode": mode}).connect(database) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match=r"does not support TLS, but postgres\.sslmode = 'require'"):
        serve(settings={"sslmode": "require"}).connect(database)


def test_authorities_and_names_are_checked_as_sslmode_says(serve, postgres_tls, database_tls, other):
    def refused(**settings):
        server = serve(postgres=postgres_tls, settings=settings)
        with pytest.raises(psycopg.OperationalError, match="certificate was not accepted"):
            server.connect(database_tls)

    ours = postgres_tls.tls.ca
    refused(sslmode="verify-ca", sslrootcert=other.ca)
    refused(sslmode="require", sslrootcert=other.ca)
    refused(sslmode="verify-full", sslrootcert=ours, host="127.1")
    with serve(postgres=postgres_tls, settings={"sslmode": "verify-ca", "sslrootcert": ours, "host": "127.1"}).connect(
        database_tls
    ) as client:
        assert client.execute(SECURE).fetchone() == (True,)
    # As libpq: "prefer" falls back to no TLS when TLS fails.
    with serve(postgres=postgres_tls, settings={"sslmode": "prefer", "sslrootcert": other.ca}).connect(
        database_tls
    ) as client:
        assert client.execute(SECURE).fetchone() == (False,)


def test_refused_attempt_leads_to_the_other_kind(serve, postgres_tls, database_tls):
    """pg_hba.conf lets in only TLS, then only plain connections."""
    hba = postgres_tls.data_dir / "pg_hba.conf"
    before = hba.read_text()

    def rules(kind):
        hba.write_text(f"{kind} {database_tls} all 127.0.0.1/32 trust\nhost {database_tls} all all reject\n" + before)
        subprocess.run(["kill", "-HUP", str(postgres_tls.pid)], check=True)

    def eventually(mode, secure):
        server = serve(postgres=postgres_tls, settings={"sslmode": mode})
        for _ in range(50):
            with server.connect(database_tls) as client:
                if client.execute(SECURE).fetchone() == (secure,):
                    return
        pytest.fail(f"{mode} never came to {secure}")

    try:
        rules("hostssl")
        eventually("allow", True)
        rules("hostnossl")
        eventually("prefer", False)
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            serve(postgres=postgres_tls, settings={"sslmode": "require"}).connect(database_tls)
    finally:
        hba.write_text(before)
        subprocess.run(["kill", "-HUP", str(postgres_tls.pid)], check=True)


def test_cancel_over_tls_works_and_leaves_no_backend(serve, postgres_tls, database_tls):
    server = serve(postgres=postgres_tls, settings={"sslmode": "require"})
    with (
        server.connect(database_tls) as client,
        psycopg.connect(postgres_tls.dsn(database_tls), autocommit=True) as watch,
    ):
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s"
        client.execute("SET statement_timeout = '20s'")
        raw = server.dial()
        raw.sendall(greeting(database_tls))
        while b"Z\0\0\0\5I" not in raw.recv(100_000):
            pass
        raw.sendall(bytes(frontend.Query(b"SELECT pg_sleep(3600)")))
        while watch.execute(count, ("SELECT pg_sleep(3600)%",)).fetchone() != (1,):
            pass
        raw.close()
        assert server.wait(lambda server: server.traffic.sessions == 1, 6)
        assert watch.execute(count, ("SELECT pg_sleep(3600)%",)).fetchone() == (0,)


# Both legs.


def test_channel_binding_works_with_the_certificate_of_the_server(serve, postgres_tls, database_tls):
    server = serve(postgres=postgres_tls, settings={"sslmode": "require"}, tls=section(postgres_tls.tls))
    with capture_logs() as lines:
        client = server.connect(
            database_tls, sslmode="require", channel_binding="require", user="scram_user", password="secret"
        )
    with client:
        assert client.execute(SECURE).fetchone() == (True,)
    assert lines == []


def test_another_certificate_is_warned_about_once(serve, postgres_tls, database_tls, other):
    server = serve(postgres=postgres_tls, settings={"sslmode": "require"}, tls=section(other))
    words = {"sslmode": "require", "user": "scram_user", "password": "secret"}
    with capture_logs() as lines:
        with pytest.raises(psycopg.OperationalError, match="channel binding"):
            server.connect(database_tls, **words)
        with server.connect(database_tls, channel_binding="disable", **words) as client:
            assert client.execute(SECURE).fetchone() == (True,)
    assert len([line for line in lines if "another certificate" in line["event"]]) == 1


# Files.


def usable(files, **options):
    return TlsSection.model_construct(
        **{"cert": files.cert, "key": files.key, "ca": None, "required": False, "passphrase": None} | options
    )


@pytest.fixture(scope="module")
def encrypted(other, tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    path = tmp_path_factory.mktemp("encrypted") / "key.pem"
    command = ["openssl", "rsa", "-aes256", "-in", other.key, "-out", path, "-passout", "pass:opened"]
    subprocess.run(command, check=True, capture_output=True)
    return path


def test_encrypted_key_is_opened_with_its_passphrase_alone(other, encrypted):
    with pytest.raises(tls.TlsError, match=r"is encrypted; set proxy\.tls\.passphrase"):
        tls.client_context(usable(other, key=encrypted))
    with pytest.raises(tls.TlsError, match=r"proxy\.tls\.passphrase: does not open"):
        tls.client_context(usable(other, key=encrypted, passphrase=SecretStr("wrong")))
    assert tls.client_context(usable(other, key=encrypted, passphrase=SecretStr("opened")))


def test_unusable_files_are_named_with_the_reason(other, postgres_tls, tmp_path):
    nothing = tmp_path / "nothing.pem"
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    for options, message in (
        ({"cert": nothing}, "proxy.tls.cert: .*nothing.pem cannot be read: no such file"),
        ({"key": nothing}, "proxy.tls.key: .*nothing.pem cannot be read: no such file"),
        ({"key": rubbish}, "are not usable in PEM format"),
        ({"cert": rubbish}, "are not usable in PEM format"),
        ({"key": postgres_tls.tls.key}, "is not the key of"),
        ({"ca": rubbish}, "proxy.tls.ca: .* holds no certificate"),
    ):
        with pytest.raises(tls.TlsError, match=message):
            tls.client_context(usable(other, **options))
    with pytest.raises(tls.TlsError, match="holds no certificate"):
        tls.own_certificate(usable(other, cert=rubbish))
    with pytest.raises(tls.TlsError, match=r"postgres\.sslrootcert: .* cannot be read"):
        tls.backend_context(PostgresSection().model_copy(update={"sslmode": "verify-ca", "sslrootcert": nothing}))


def test_system_authorities_are_trusted_where_they_are_configured():
    settings = PostgresSection().model_copy(update={"sslmode": "verify-full", "sslrootcert": "system"})
    context = tls.backend_context(settings)
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_no_context_is_made_where_tls_is_ruled_out(postgres):
    assert tls.backend_context(PostgresSection(sslmode="disable")) is None
    assert tls.backend_context(PostgresSection(host="/tmp", sslmode="require")) is None
    assert tls.backend_context(PostgresSection()) is not None
