"""Tables read in key order, what Redis holds under their keys, and how far it has come."""

import io
import json

import psycopg
import pytest
from rich.console import Console

from cache.rules import ValueFormat
from proxy.commands import progress as reading_progress
from proxy.commands import table_reader as reading
from proxy.commands.progress import Meter
from proxy.commands.redis_reader import Foreign, Keys
from proxy.commands.table_reader import Misuse, Reader, ReadFailure, bind, select
from proxy.config import load as config
from proxy.config.sections import RedisSection
from proxy.demo.servers import HOST, free_port

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}


@pytest.fixture
def configure(postgres, database, redis_url):
    """`configure(table, …)`: a configuration that means the fixtures' servers."""

    def make(*tables):
        environment = {
            "ROWTAP_POSTGRES__HOST": HOST,
            "ROWTAP_POSTGRES__PORT": str(postgres.port),
            "ROWTAP_POSTGRES__DATABASE": database,
            "ROWTAP_REDIS__URL": redis_url,
            "ROWTAP_TABLE": json.dumps(tables),
        }
        return config.load(None, None, environment)

    return make


@pytest.fixture
def opened(configure, postgres, database):
    """`async with opened(table) as (reader, Table)` of one rule."""

    class Opened:
        def __init__(self, table, dsn=None):
            self.settings = configure(table)
            self.dsn = dsn or f"user={postgres.user}"

        async def __aenter__(self):
            rules = self.settings.rules()
            found, problems = bind(self.settings.postgres, self.dsn, rules, rules)
            assert problems == []
            self.reader = await Reader(self.settings.postgres, self.dsn, database).__aenter__()
            try:
                return await self.reader.table(found[database][0])
            except ReadFailure:
                await self.reader.__aexit__(None, None, None)
                raise

        async def __aexit__(self, *failure):
            await self.reader.__aexit__(*failure)

    return Opened


async def collect(pages):
    return [page async for page in pages]


async def test_pages_hold_every_row_once_in_order(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n * 3, 'n' || n FROM generate_series(-500, 1000) n; ANALYZE users")
    async with opened(USERS) as table:
        pages = await collect(table.pages(limit=333))
        assert [int(row.parts[0]) for page in pages for row in page] == list(range(-1500, 3001, 3))
        assert max(map(len, pages)) == 333
        assert table.estimate == 1501
        assert table.order == ("id",)
        first = pages[0][0]
        assert first == (b"users:-1500", b"n-500", (b"-1500",), (b"-1500",))
        behind = await collect(table.pages([b"2990"]))
        assert [row.key for row in behind[0]] == [b"users:2991", b"users:2994", b"users:2997", b"users:3000"]
        assert [row.key for (row,) in await collect(table.pages([b"3000"], inclusive=True))] == [b"users:3000"]
        assert await collect(table.pages([b"3000"])) == []


async def test_a_composite_key_is_read_in_its_indexs_order(opened, connect):
    connect().execute("CREATE TABLE users (a text, b int, name text, x int, UNIQUE (b, a), PRIMARY KEY (a, b))")
    connect().execute("INSERT INTO users SELECT chr(65 + n % 3), n, 'x' FROM generate_series(1, 200) n")
    async with opened(USERS | {"key": ["b", "a"], "redis_key": "u:{b}:{a}"}) as table:
        assert table.order == ("a", "b")
        rows = [row for page in await collect(table.pages(limit=7)) for row in page]
        assert [row.place for row in rows] == sorted((row.place for row in rows), key=lambda at: (at[0], int(at[1])))
        assert len({row.key for row in rows}) == 200
        assert rows[0].parts == rows[0].place[::-1]


async def test_an_index_of_a_part_of_the_key_is_enough(opened, connect):
    connect().execute("CREATE TABLE users (a text, b int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users VALUES ('x', 1, 'one'), (NULL, 2, 'no key'), ('y', 3, NULL)")
    async with opened(USERS | {"key": ["a", "b"], "redis_key": "u:{a}:{b}"}) as table:
        assert table.order == ("b",)
        (rows,) = await collect(table.pages())
        assert [(row.key, row.value) for row in rows] == [(b"u:x:1", b"one"), (b"u:y:3", None)]


async def test_large_rows_make_small_pages(opened, connect, monkeypatch):
    monkeypatch.setattr(reading, "PAGE_BYTES", 100_000)
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n, repeat('x', 10000) FROM generate_series(1, 130) n")
    async with opened(USERS) as table:
        sizes = [len(page) for page in await collect(table.pages())]
    assert sizes[0] == reading.FIRST_PAGE
    assert set(sizes[1:-1]) == {9}
    assert sum(sizes) == 130


async def test_values_are_canonical_whatever_the_session_would_print(opened, connect, database):
    connection = connect()
    connection.execute("CREATE TYPE pair AS (at timestamptz, f float8)")
    connection.execute(
        "CREATE TABLE users (id timestamptz PRIMARY KEY, name bytea, f float8, d date, i interval, p pair, n numeric)"
    )
    connection.execute(
        "INSERT INTO users VALUES ('2020-07-01 12:00+02', '\\x00ff', 0.1, '2020-01-02', '1 day 2:03', "
        "('2020-07-01 12:00+02', 1e20), 1.50)"
    )
    for name, value in (
        ("DateStyle", "German"),
        ("TimeZone", "Asia/Tokyo"),
        ("extra_float_digits", "-5"),
        ("bytea_output", "escape"),
        ("IntervalStyle", "iso_8601"),
        ("client_encoding", "LATIN1"),
        ("search_path", "nowhere"),
    ):
        connection.execute(f"ALTER DATABASE {database} SET {name} TO '{value}'")
    columns = ["name", "f", "d", "i", "p", "n"]
    async with opened(USERS | {"value": columns, "format": "hash"}) as table:
        ((row,),) = await collect(table.pages())
        assert row.key == b"users:2020-07-01 10:00:00+00"
        assert row.value == {
            b"name": b"\\x00ff",
            b"f": b"0.1",
            b"d": b"2020-01-02",
            b"i": b"1 day 02:03:00",
            b"p": b'("2020-07-01 10:00:00+00",1e+20)',
            b"n": b"1.50",
        }
        assert await table.find([row.parts]) == {row.key: row}
        assert await collect(table.pages(row.place)) == []


async def test_what_no_session_could_read_is_postgresqls_own_text(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name timestamp)")
    connect().execute("INSERT INTO users VALUES (1, '0044-03-15 BC'), (2, '294276-01-01'), (3, 'infinity')")
    async with opened(USERS) as table:
        (rows,) = await collect(table.pages())
    assert [row.value for row in rows] == [b"0044-03-15 00:00:00 BC", b"294276-01-01 00:00:00", b"infinity"]


async def test_partitions(opened, connect):
    connect().execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (500);
        CREATE TABLE high PARTITION OF users FOR VALUES FROM (500) TO (1000);
        INSERT INTO users SELECT n, 'x' FROM generate_series(0, 999) n; ANALYZE users
    """)
    async with opened(USERS) as table:
        assert table.estimate == 1000
        rows = [row for page in await collect(table.pages()) for row in page]
        assert [int(row.parts[0]) for row in rows] == list(range(1000))


async def test_odd_names(opened, connect):
    connect().execute("""CREATE SCHEMA "s""x"; CREATE TABLE "s""x"."T %s $1" ("k ""%" text PRIMARY KEY, "v$2" text)""")
    connect().execute("""INSERT INTO "s""x"."T %s $1" VALUES ('ü''"\\%', 'x')""")
    entry = {"name": '"s""x"."T %s $1"', "key": 'k "%', "value": "v$2", "redis_key": 'odd:{k "%}'}
    async with opened(entry) as table:
        ((row,),) = await collect(table.pages())
        assert row.key == "odd:ü'\"\\%".encode()
        assert await table.find([row.parts, (b"other",)]) == {row.key: row}


@pytest.mark.parametrize(
    ("type_", "there", "not_there"),
    [
        ("int", b"1", [b"x", b"99999999999", b"", b"1.5", b" 1", b"01"]),
        ("uuid", b"00000000-0000-0000-0000-000000000001", [b"1", b"00000000000000000000000000000001"]),
        ("numeric", b"1.50", [b"1.5", b"one", b"NaN"]),
        ("date", b"2020-01-01", [b"2020-13-01", b"1 January 2020", b"soon"]),
        ("mood", b"ok", [b"bad", b"OK"]),
        ("text", b"a", [b"A", b"\xff", b"a\0b"]),
        ("char(3)", b"a  ", [b"a"]),
    ],
)
async def test_keys_that_no_row_can_have(opened, connect, type_, there, not_there):
    connect().execute(f"CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE users (id {type_} PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users VALUES (%s, 'x')", (there.decode(),))
    async with opened(USERS) as table:
        found = await table.find([*((key,) for key in not_there), (there,)])
        assert list(found) == [b"users:" + there]
        assert await table.find([(key,) for key in not_there]) == {}
        assert await table.find([]) == {}


async def test_a_column_that_no_value_of_can_be_captured(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name money)")
    with pytest.raises(ReadFailure, match="column 'name': money prints as lc_monetary says"):
        async with opened(USERS):
            pass


async def test_row_security_is_an_error_and_not_a_gap(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'x')")
    connect().execute("CREATE ROLE reader LOGIN; GRANT SELECT ON users TO reader")
    try:
        connect().execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON users USING (false)")
        async with opened(USERS, "user=reader") as table:
            with pytest.raises(ReadFailure, match="row-level security"):
                await collect(table.pages())
    finally:
        connect().execute("DROP OWNED BY reader; DROP ROLE reader")


async def test_a_session_cannot_write(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    async with opened(USERS) as table:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await table._reader.ask("DELETE FROM users", ())


async def test_a_table_that_goes_away(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n, 'x' FROM generate_series(1, 500) n")
    async with opened(USERS) as table:
        pages = table.pages()
        await anext(pages)
        connect().execute("DROP TABLE users")
        with pytest.raises(ReadFailure, match=r'relation "public\.users" does not exist'):
            await anext(pages)
        with pytest.raises(ReadFailure, match="does not exist"):
            await table.find([(b"1",)])


async def test_a_server_that_goes_away(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    async with opened(USERS) as table:
        connect().execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rowtap'")
        with pytest.raises(ReadFailure) as caught:
            await collect(table.pages())
        assert "\n" not in str(caught.value)


async def test_a_login_that_fails(configure, database):
    settings = configure(USERS)
    with pytest.raises(ReadFailure, match="password authentication failed") as caught:
        await Reader(settings.postgres, "user=scram_user password=wrong", database).__aenter__()
    assert "\n" not in str(caught.value)


def test_which_rules_are_meant(configure, database):
    mails = USERS | {"value": "mail", "redis_key": "mails:{id}"}
    orders = USERS | {"name": "shop.orders", "redis_key": "order:{id}"}
    rules = configure(USERS, mails, orders).rules()
    assert select(rules, []) == rules
    assert select(rules, ["users"]) == rules[:2]
    assert select(rules, ["shop.orders", "public.users"]) == rules, "in the configuration's order"
    assert select(rules, [f"{database}.public.users#mails:{{id}}"]) == [rules[1]]
    assert select(rules, [f"{database}.shop.orders"]) == [rules[2]]
    for name in ("orders", "", "shop.", "a.b.c"):
        with pytest.raises(Misuse, match="there are"):
            select(rules, [name])
    with pytest.raises(Misuse, match="no \\[\\[table\\]\\] is configured"):
        select([], [])


def test_nobody_said_how_to_log_in(configure):
    settings = configure(USERS)
    with pytest.raises(Misuse, match="--dsn"):
        bind(settings.postgres, None, settings.rules(), settings.rules())


def test_what_is_not_chosen_still_stands_in_the_way(configure, connect, database, postgres):
    connect().execute("CREATE TABLE users (id text PRIMARY KEY, name text)")
    settings = configure(USERS, USERS | {"redis_key": "users:{id}:x"})
    rules = settings.rules()
    found, problems = bind(settings.postgres, f"user={postgres.user}", rules, rules[1:])
    assert found == {database: []}
    assert len(problems) == 1
    assert "can also be one of" in problems[0]


async def test_what_redis_holds(redis_url, redis_client):
    redis_client.set("s", b"\x00\xff")
    redis_client.set("empty", "")
    redis_client.hset("h", mapping={"a": "1", "b": ""})
    async with Keys(RedisSection(url=redis_url)) as keys:
        names = [b"s", b"empty", b"h", b"absent"]
        assert await keys.get(names, ValueFormat.STRING) == [b"\x00\xff", b"", Foreign.TYPE, None]
        assert await keys.get(names, ValueFormat.JSON) == [b"\x00\xff", b"", Foreign.TYPE, None]
        assert await keys.get(names, ValueFormat.HASH) == [
            Foreign.TYPE,
            Foreign.TYPE,
            {b"a": b"1", b"b": b""},
            None,
        ]
        assert await keys.exist(names) == [True, True, True, False]
        assert await keys.get([], ValueFormat.STRING) == []


async def test_all_keys_of_a_pattern(redis_url, redis_client):
    redis_client.mset({f"users:{number}": "x" for number in range(2500)} | {"other:1": "x"})
    async with Keys(RedisSection(url=redis_url)) as keys:
        slices = await collect(keys.scan(b"users:*"))
        assert {key for found in slices for key in found} == {b"users:%d" % number for number in range(2500)}
        assert await collect(keys.scan(b"nothing:*")) == []


async def test_redis_is_not_there():
    url = f"redis://:geheim@{HOST}:{free_port()}/0"
    with pytest.raises(ReadFailure) as caught:
        await Keys(RedisSection(url=url)).__aenter__()
    assert str(caught.value).startswith(f"Redis at redis://:***@{HOST}:")
    assert "geheim" not in str(caught.value)


async def test_redis_says_no(redis_url, redis_client, valkey):
    redis_client.acl_setuser("guest", enabled=True, nopass=True, commands=["-@all", "+select", "+client"], keys=["*"])
    try:
        url = redis_url.replace("://", "://guest:x@")
        async with Keys(RedisSection(url=url)) as keys:
            with pytest.raises(ReadFailure, match=r"permission|NOPERM"):
                await keys.exist([b"a"])
    finally:
        redis_client.acl_deluser("guest")


def test_lines_now_and_then(monkeypatch):
    monkeypatch.setattr(reading_progress, "INTERVAL", 0)
    out = io.StringIO()
    with Meter(Console(file=out)) as meter:
        meter.begin("users", 2000)
        meter.advance(1500)
        meter.advance(1500)
        meter.begin("keys", None)
        meter.advance(7)
        meter.say("error: [bold]x[/bold]")
    assert out.getvalue().splitlines() == [
        "users: 1,500 of about 2,000",
        "users: 3,000",
        "keys: 7",
        "error: [bold]x[/bold]",
    ]


def test_no_line_for_what_is_quick():
    out = io.StringIO()
    with Meter(Console(file=out)) as meter:
        meter.begin("users", 2000)
        meter.advance(2000)
    assert out.getvalue() == ""


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    with Meter(Console(file=out, force_terminal=True, width=100)) as meter:
        meter.begin("[users]", 2000)
        meter.advance(1500)
        assert meter._bar is not None
        meter._bar.refresh()
        meter.say("note: [x]")
        meter.advance(1500)
        meter.begin("keys", None)
        meter.advance(7)
    assert "[users]" in out.getvalue()
    assert "1,500 of about 2,000" in out.getvalue()
    assert "note: [x]" in out.getvalue()
    assert "keys" in out.getvalue()
