"""The configuration: defaults, where values come from, and every refusal's wording."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from cache.rules import ValueFormat
from proxy.config.load import Config, ConfigError, load, section_model
from proxy.config.units import Address

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def refusals(configured, tmp_path):
    """`refusals(text, …)`: the messages, without the file's path."""

    def refusals(text="", overrides=None, **environment):
        with pytest.raises(ConfigError) as caught:
            configured(text, overrides, **environment)
        return [message.removeprefix(f"{tmp_path}/config.toml:") for message in caught.value.messages]

    return refusals


TABLE = '[postgres]\ndatabase = "app"\n[[table]]\nname = "users"\nkey = "id"\nvalue = "name"\n'


# -- values


def test_empty_file_gives_the_defaults_and_a_warning(configured):
    empty = configured()
    assert empty.rules() == []
    (warning,) = empty.warnings()
    assert "no [[table]]" in warning
    assert empty.proxy.listen == (Address("127.0.0.1", 6432),)
    assert (empty.proxy.workers, empty.proxy.max_connections, empty.proxy.shutdown_timeout) == (1, 1000, 30.0)
    assert (empty.proxy.client_login_timeout, empty.proxy.tls) == (60.0, None)
    assert (empty.postgres.host, empty.postgres.port, empty.postgres.sslmode) == ("localhost", 5432, "prefer")
    assert (empty.redis.url, empty.redis.flush_interval) == ("redis://localhost:6379/0", 0.002)
    assert empty.admin.listen == Address("127.0.0.1", 9432)


def test_shipped_file_has_every_key_with_its_default():
    shipped = load(ROOT / "config.toml", environment={})
    defaults = load(None, environment={})
    for section in ("proxy", "redis", "cache", "admin", "log"):
        assert getattr(shipped, section) == getattr(defaults, section), section
    text = (ROOT / "config.toml").read_text()
    for section, field in Config.model_fields.items():
        model = section_model(field.annotation)
        assert model is not None
        for key in model.model_fields:
            name = f"[{section}.{key}]" if key == "tls" else f"{key} = "
            assert name in text, f"{section}.{key} is not in config.toml"
    (rule,) = shipped.rules()
    assert (rule.database, rule.schema, rule.table, rule.key, rule.value) == (
        "app",
        "public",
        "users",
        ("id",),
        ("name",),
    )
    assert rule.template.render([b"42"]) == b"users:42"
    assert (rule.ttl, rule.format, rule.label) == (3_600_000, ValueFormat.STRING, "app.public.users")
    assert shipped.warnings() == []


def test_every_key_is_read_from_the_file(configured, tmp_path):
    found = configured(
        """
        [proxy]
        listen = ["127.0.0.1:1", "[::1]:2", "/run/rowtap:3"]
        workers = "auto"
        max_connections = 5
        shutdown_timeout = "0s"
        client_login_timeout = "5s"
        [proxy.tls]
        cert = "server.crt"
        key = "/etc/server.key"
        ca = "ca.crt"
        required = true
        passphrase = "geheim"
        [postgres]
        host = "/run/postgresql"
        port = 5433
        database = "app"
        sslmode = "verify-full"
        sslrootcert = "root.crt"
        connect_timeout = "3s"
        [redis]
        url = "rediss://rowtap:geheim@redis:6380/3"
        flush_interval = "0s"
        max_backlog = 10
        [cache]
        before_commit = true
        statements = 100
        [admin]
        listen = "off"
        [log]
        level = "debug"
        format = "json"
        [[table]]
        name = "Shop.Orders"
        key = ["tenant", "id"]
        value = ["state", "total"]
        redis_key = "o:{tenant}:{id}"
        format = "hash"
        ttl = "90s"
        ttl_jitter = 0.25
        max_rows = 7
        database = "shop"
        """
    )
    assert [str(address) for address in found.proxy.listen] == ["127.0.0.1:1", "[::1]:2", "/run/rowtap/.s.PGSQL.3"]
    assert found.proxy.workers == "auto"
    assert found.proxy.tls.cert == tmp_path / "server.crt", "relative to the file"
    assert found.proxy.tls.key == Path("/etc/server.key")
    assert found.proxy.tls.passphrase.get_secret_value() == "geheim"
    assert found.postgres.socket_path == "/run/postgresql/.s.PGSQL.5433"
    assert found.admin.listen is None
    (rule,) = found.rules()
    assert (rule.database, rule.schema, rule.table) == ("shop", "Shop", "Orders")
    assert rule.template.render([b"a", b"1"]) == b"o:a:1"
    assert (rule.format, rule.ttl, rule.ttl_jitter, rule.max_rows) == (ValueFormat.HASH, 90_000, 0.25, 7)


def test_secrets_are_not_printed(configured):
    found = configured(
        '[redis]\nurl = "redis://u:geheim@h/0?password=geheim"\n[proxy.tls]\ncert="a"\nkey="b"\npassphrase="geheim"'
    )
    assert "geheim" not in repr(found)
    assert "geheim" not in str(found)
    assert found.redis.safe_url == "redis://u:***@h/0?…"


def test_configuration_is_immutable(configured):
    found = configured(TABLE)
    with pytest.raises(ValidationError, match="frozen"):
        found.postgres.port = 1
    assert found.rules()[0] is found.rules()[0]
    found.rules().clear()
    assert len(found.rules()) == 1


# -- sources


def test_flag_precedes_environment_precedes_file_precedes_default(configured):
    text = "[proxy]\nworkers = 2\nmax_connections = 2\n[postgres]\nport = 2\n"
    environment = {"ROWTAP_PROXY__WORKERS": "3", "ROWTAP_PROXY__MAX_CONNECTIONS": "3"}
    found = configured(text, {"proxy.workers": "4"}, **environment)
    assert (found.proxy.workers, found.proxy.max_connections, found.postgres.port, found.redis.max_backlog) == (
        4,
        3,
        2,
        100_000,
    )


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("ROWTAP_POSTGRES__HOST", "5", "postgres.host", "5"),
        ("ROWTAP_POSTGRES__PORT", "5", "postgres.port", 5),
        ("ROWTAP_CACHE__BEFORE_COMMIT", "true", "cache.before_commit", True),
        ("ROWTAP_PROXY__WORKERS", "auto", "proxy.workers", "auto"),
        ("ROWTAP_PROXY__WORKERS", "4", "proxy.workers", 4),
        ("ROWTAP_PROXY__LISTEN", "*:1", "proxy.listen", (Address("", 1),)),
        ("ROWTAP_PROXY__LISTEN", '["*:1", "*:2"]', "proxy.listen", (Address("", 1), Address("", 2))),
        ("ROWTAP_REDIS__MAX_BACKLOG", "10_000", "redis.max_backlog", 10_000),
        ("ROWTAP_LOG__LEVEL", "debug", "log.level", "debug"),
    ],
)
def test_variable_is_read_as_the_type_of_its_key(configured, name, text, path, value):
    found = configured(**{name: text})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("text", ['[{name="t", key="i", value="v"}]', '[{"name":"t", "key":"i", "value":"v"}]'])
def test_tables_are_read_from_one_variable(configured, text):
    (rule,) = configured(ROWTAP_TABLE=text, ROWTAP_POSTGRES__DATABASE="app").rules()
    assert rule.label == "app.public.t"


def test_section_can_come_from_the_environment_alone(configured):
    found = configured(ROWTAP_PROXY__TLS__CERT="a", ROWTAP_PROXY__TLS__KEY="b", ROWTAP_PROXY__TLS__PASSPHRASE="123")
    assert found.proxy.tls.passphrase.get_secret_value() == "123"


def test_variables_with_a_single_underscore_are_ignored(configured):
    """What Kubernetes and Docker links set for a service called rowtap."""
    configured(
        ROWTAP_PORT="tcp://10.0.0.1:6432", ROWTAP_SERVICE_HOST="10.0.0.1", ROWTAP_PORT_6432_TCP="x", ROWTAP_CONFIG="y"
    )


def test_reload_reads_the_changed_file_under_the_same_flags(configured, tmp_path, monkeypatch):
    monkeypatch.delenv("ROWTAP_POSTGRES__PORT", raising=False)
    first = configured("[postgres]\nport = 1\n[proxy]\nworkers = 1", {"proxy.workers": "2"})
    (tmp_path / "config.toml").write_text("[postgres]\nport = 7\n[proxy]\nworkers = 1")
    second = first.reload()
    assert (first.postgres.port, second.postgres.port, second.proxy.workers) == (1, 7, 2)
    (tmp_path / "config.toml").write_text("[postgres]\nport = 0")
    with pytest.raises(ConfigError):
        second.reload()


# -- refusals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[proxy]\nlisten = 5", '2: proxy.listen: must be an address such as "127.0.0.1:6432" in quotes, not 5'),
        ("[proxy]\n\nwrokers = 5", '3: proxy.wrokers: no such key; did you mean "workers"?'),
        ("[porxy]\n", '1: porxy: no such section; did you mean "proxy"?'),
        (
            "[log]\nzzz = 1",
            "2: log.zzz: no such key; known here: level, format",
        ),
        ("postgres = 5", "1: postgres: must be a section [postgres], not 5"),
        ("[table]\nname = 'x'", '1: table: must be entries [[table]], not {"name": "x"}'),
        ("table = [5]", "1: table[1]: must be a section [[table]], not 5"),
        ("[postgres]\nport = '5432'", '2: postgres.port: must be a whole number, not "5432"'),
        ("[postgres]\nport = true", "2: postgres.port: must be a whole number, not true"),
        ("[postgres]\nport = 0", "2: postgres.port: must be at least 1, not 0"),
        ("[postgres]\nport = 65536", "2: postgres.port: must be at most 65535, not 65536"),
        ("[postgres]\nhost = 5", "2: postgres.host: must be text in quotes, not 5"),
        ("postgres.host=''", "1: postgres.host: must be a name, an address or the directory of a Unix socket, not ''"),
        ("[postgres]\nhost = 'a,b'", "2: postgres.host: must be one host; port and database have keys of their own"),
        (
            "[postgres]\nsslmode = 'verify'",
            ('2: postgres.sslmode: must be "disable", "allow", "prefer", "require", "verify-ca" or "verify-full", not'
            ' "verify"; did you mean "verify-ca"?'),
        ),
        (
            "[postgres]\nsslmode = 'verify-ca'",
            '1: postgres: sslmode = "verify-ca" needs sslrootcert, the file of trusted certificates, or "system"',
        ),
        (
            "[postgres]\nsslmode = 'verify-ca'\nsslrootcert = 'system'",
            '1: postgres: sslrootcert = "system" needs sslmode = "verify-full"',
        ),
        (
            "[cache]\n[proxy]\nshutdown_timeout = '30'",
            (
                "3: proxy.shutdown_timeout: must be a duration with a unit (us, ms, s, min, h, d)"
                " such as \"30s\", not '30'"
            ),
        ),
        ("[postgres]\ncatalog_interval = '0s'", "2: postgres.catalog_interval: must be longer than nothing"),
        ("[postgres]\nconnect_timeout = '0s'", "2: postgres.connect_timeout: must be longer than nothing"),
        ("[proxy]\nworkers = 0", "2: proxy.workers: must be a number from 1 to 1024, or \"auto\", not 0"),
        ("[proxy]\nlisten = []", '2: proxy.listen: needs at least one address, such as "127.0.0.1:6432"'),
        ("[proxy]\nlisten = ['a:1', 'a:1']", "2: proxy.listen: names a:1 twice"),
        ("[proxy.tls]\ncert = 'a'", "1: proxy.tls.key: is required"),
        ("[cache]\nbefore_commit = 'yes'", '2: cache.before_commit: must be true or false, not "yes"'),
        ("[redis]\nurl = 'http://:geheim@x'", '2: redis.url: must begin with "redis://", "rediss://", "unix://" or "redis+sentinel://"'),
        ("[redis]\nurl = 'redis://:geheim@'", '2: redis.url: names no host; write "redis://localhost:6379/0"'),
        ("[redis]\nurl = 'redis://:geheim@h:x'", '2: redis.url: must be a URL such as "redis://localhost:6379/0"'),
        ("[redis]\nurl = ['geheim']", "2: redis.url: must be text in quotes, not a list"),
        ("[redis]\nurl = 'redis://h/x'", '2: redis.url: must end with the number of a database, such as "/0"'),
        (
            "[redis]\nurl = 'redis+sentinel://:geheim@a,b'",
            '2: redis.url: names no service; write "redis+sentinel://host:26379,other:26379/mymaster/0"',
        ),
        ("[redis]\nurl = 'redis://:geheim@h?colour=geheim'", "2: redis.url: has an option that is not known: 'colour'"),
        ("[redis]\nurl = 'redis://h?db=geheim'", "2: redis.url: Invalid value for 'db' in connection URL."),
        ("[redis]\nurl = 'rediss://h?ssl_ca_certs=/no'", "2: redis.url: ssl_ca_certs: there is no file /no"),
        (
            "[redis]\nurl = 'rediss+sentinel://h:x/main'",
            "2: redis.url: names no sentinel: 'h:x'; write host or host:port",
        ),
        ("[redis]\nurl = 'unix://run/x'", "2: redis.url: must name the socket's whole path: \"unix:///run/redis.sock\""),
        (
            "[log]\nlevel = 'inf'",
            '2: log.level: must be "debug", "info", "warning" or "error", not "inf"; did you mean "info"?',
        ),
        (
            TABLE + "format = 'string'\nttl = 5",
            '8: table[1].ttl: must be a duration such as "30s" in quotes, not 5',
        ),
        (TABLE + "ttl = '100us'", "7: table[1].ttl: must be at least 1ms, the shortest time to live Redis knows"),
        (TABLE + "ttl_jitter = 0.1", "3: table[1]: ttl_jitter shortens ttl, and there is none"),
        (TABLE + "ttl_jitter = 1.5", "7: table[1].ttl_jitter: must be at most 1.0, not 1.5"),
        (TABLE + "max_rows = 0", "7: table[1].max_rows: must be at least 1, not 0"),
        (
            TABLE.replace('"name"\n', '["name", "email"]\n'),
            '3: table[1]: format = "string" holds one value column, not name, email: use "hash" or "json"',
        ),
        (TABLE.replace('"id"', "[]"), "5: table[1].key: needs at least one column"),
        (TABLE.replace('"id"', '["id", "id"]'), "5: table[1].key: names the column 'id' twice"),
        (TABLE.replace('"id"', '""'), "5: table[1].key: must not be empty"),
        (
            TABLE.replace('"users"', '"a.b.c"'),
            ("4: table[1].name: 'a.b.c' has 3 parts: use \"schema.table\", and \"database = …\" for the database;"
            " put a part with a dot in it in double quotes"),
        ),
        (
            TABLE.replace('database = "app"', ""),
            '3: table[1]: needs a database: set database = "…" in [postgres], or here',
        ),
    ],
)  # fmt: skip
def test_fault_is_named_with_its_line_and_what_would_be_right(refusals, text, expected):
    assert refusals(text) == [expected]


def test_all_faults_are_reported_in_the_order_of_the_file(refusals):
    assert [
        message.split(": ")[0] for message in refusals("[proxy]\nx = 1\nworkers = 0\n[log]\nlevel = 1\n[zzz]\n")
    ] == [
        "2",
        "3",
        "5",
        "6",
    ]


def test_fault_of_a_variable_or_flag_is_named_by_it(refusals):
    assert refusals("[postgres]\nport = 1", ROWTAP_POSTGRES__PORT="x") == [
        'ROWTAP_POSTGRES__PORT: postgres.port: must be a whole number, not "x"'
    ]
    assert refusals(ROWTAP_POSTGRES__HOTS="x") == [
        'ROWTAP_POSTGRES__HOTS: postgres.hots: no such key; did you mean "host"?'
    ]
    assert refusals("", {"log.level": "x"}) == [
        'command line: log.level: must be "debug", "info", "warning" or "error", not "x"'
    ]
    (message,) = refusals(ROWTAP_REDIS__URL="x://geheim")
    assert "geheim" not in message


def test_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path):
    for name, content, expected in (
        ("absent.toml", None, "cannot be read: no such file or directory; name a file with --config"),
        ("broken.toml", b"a = \n", "is not valid TOML: Invalid value (at line 1, column 5)"),
        ("latin.toml", b"a = '\xe4'", "is not UTF-8 text (byte 5)"),
        ("deep.toml", b"a = " + b"[" * 100_000, "is nested too deeply"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(path, environment={})
        assert caught.value.messages == [f"{path}: {expected}"]


def test_variable_below_a_key_that_is_no_section_leaves_the_fault_to_the_file(refusals):
    assert refusals("postgres = 5", ROWTAP_POSTGRES__PORT="1") == ["1: postgres: must be a section [postgres], not 5"]


def test_catalog_interval_is_seconds_or_off(configured):
    text = "[[table]]\nname = 'users'\nkey = 'id'\nvalue = 'name'\ndatabase = 'app'\n[postgres]\n"
    assert configured(text).postgres.catalog_interval == 5.0
    assert configured(text + "catalog_interval = '2s'").postgres.catalog_interval == 2.0
    assert configured(text + "catalog_interval = 'off'").postgres.catalog_interval is None
