"""Tables read in key order, as Redis should hold their rows."""

import psycopg
import pytest

from proxy.commands import table_reader
from proxy.commands.table_reader import CanonicalConnection, ReadFailure, UsageError, bind_rules, select_rules
from proxy.demo.servers import free_port

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}


@pytest.fixture
def opened(configure, postgres, database):
    """`async with opened(table) as rows`: the `TableRows` of one rule."""

    class Opened:
        def __init__(self, table, dsn=None):
            self.settings = configure(table)
            self.dsn = dsn or f"user={postgres.user}"

        async def __aenter__(self):
            rules = self.settings.rules()
            found, problems = bind_rules(self.settings.postgres, self.dsn, rules, rules)
            assert problems == []
            self.connection = await CanonicalConnection(self.settings.postgres, self.dsn, database).__aenter__()
            try:
                return await self.connection.table(found[database][0])
            except ReadFailure:
                await self.connection.__aexit__(None, None, None)
                raise

        async def __aexit__(self, *failure):
            await self.connection.__aexit__(*failure)

    return Opened


async def collect(pages):
    return [page async for page in pages]


async def test_pages_hold_every_row_once_in_key_order(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n * 3, 'n' || n FROM generate_series(-500, 1000) n; ANALYZE users")
    async with opened(USERS) as table:
        pages = await collect(table.pages(limit=333))
        assert [int(row.key_texts[0]) for page in pages for row in page] == list(range(-1500, 3001, 3))
        assert max(map(len, pages)) == 333
        assert table.estimate == 1501
        assert table.order == ("id",)
        first = pages[0][0]
        assert first == (b"users:-1500", b"n-500", (b"-1500",), (b"-1500",))
        behind = await collect(table.pages([b"2990"]))
        assert [row.key for row in behind[0]] == [b"users:2991", b"users:2994", b"users:2997", b"users:3000"]
        assert [row.key for (row,) in await collect(table.pages([b"3000"], inclusive=True))] == [b"users:3000"]
        assert await collect(table.pages([b"3000"])) == []


async def test_composite_key_is_read_in_the_order_of_the_primary_key(opened, connect):
    connect().execute("CREATE TABLE users (a text, b int, name text, x int, UNIQUE (b, a), PRIMARY KEY (a, b))")
    connect().execute("INSERT INTO users SELECT chr(65 + n % 3), n, 'x' FROM generate_series(1, 200) n")
    async with opened(USERS | {"key": ["b", "a"], "redis_key": "u:{b}:{a}"}) as table:
        assert table.order == ("a", "b")
        rows = [row for page in await collect(table.pages(limit=7)) for row in page]
        assert [row.position for row in rows] == sorted(
            (row.position for row in rows), key=lambda at: (at[0], int(at[1]))
        )
        assert len({row.key for row in rows}) == 200
        assert rows[0].key_texts == rows[0].position[::-1]


async def test_unique_index_on_a_part_of_the_key_gives_the_order(opened, connect):
    connect().execute("CREATE TABLE users (a text, b int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users VALUES ('x', 1, 'one'), (NULL, 2, 'no key'), ('y', 3, NULL)")
    async with opened(USERS | {"key": ["a", "b"], "redis_key": "u:{a}:{b}"}) as table:
        assert table.order == ("b",)
        (rows,) = await collect(table.pages())
        assert [(row.key, row.value) for row in rows] == [(b"u:x:1", b"one"), (b"u:y:3", None)]


async def test_pages_after_large_rows_are_smaller(opened, connect, monkeypatch):
    monkeypatch.setattr(table_reader, "PAGE_BYTES", 100_000)
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users SELECT n, repeat('x', 10000) FROM generate_series(1, 130) n")
    async with opened(USERS) as table:
        sizes = [len(page) for page in await collect(table.pages())]
    assert sizes[0] == table_reader.FIRST_PAGE_ROWS
    assert set(sizes[1:-1]) == {9}
    assert sum(sizes) == 130


async def test_values_are_canonical_under_any_settings_of_the_database(opened, connect, database):
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
        assert await table.find([row.key_texts]) == {row.key: row}
        assert await collect(table.pages(row.position)) == []


async def test_value_no_loader_accepts_is_postgresqls_own_text(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name timestamp)")
    connect().execute("INSERT INTO users VALUES (1, '0044-03-15 BC'), (2, '294276-01-01'), (3, 'infinity')")
    async with opened(USERS) as table:
        (rows,) = await collect(table.pages())
    assert [row.value for row in rows] == [b"0044-03-15 00:00:00 BC", b"294276-01-01 00:00:00", b"infinity"]


async def test_partitioned_table_is_read_and_estimated_whole(opened, connect):
    connect().execute("""
        CREATE TABLE users (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (500);
        CREATE TABLE high PARTITION OF users FOR VALUES FROM (500) TO (1000);
        INSERT INTO users SELECT n, 'x' FROM generate_series(0, 999) n; ANALYZE users
    """)
    async with opened(USERS) as table:
        assert table.estimate == 1000
        rows = [row for page in await collect(table.pages()) for row in page]
        assert [int(row.key_texts[0]) for row in rows] == list(range(1000))


async def test_names_with_quotes_and_placeholders_are_quoted(opened, connect):
    connect().execute("""CREATE SCHEMA "s""x"; CREATE TABLE "s""x"."T %s $1" ("k ""%" text PRIMARY KEY, "v$2" text)""")
    connect().execute("""INSERT INTO "s""x"."T %s $1" VALUES ('ü''"\\%', 'x')""")
    entry = {"name": '"s""x"."T %s $1"', "key": 'k "%', "value": "v$2", "redis_key": 'odd:{k "%}'}
    async with opened(entry) as table:
        ((row,),) = await collect(table.pages())
        assert row.key == "odd:ü'\"\\%".encode()
        assert await table.find([row.key_texts, (b"other",)]) == {row.key: row}


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
async def test_text_that_is_not_of_the_key_columns_type_finds_no_row(opened, connect, type_, there, not_there):
    connect().execute(f"CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE users (id {type_} PRIMARY KEY, name text)")
    connect().execute("INSERT INTO users VALUES (%s, 'x')", (there.decode(),))
    async with opened(USERS) as table:
        found = await table.find([*((key,) for key in not_there), (there,)])
        assert list(found) == [b"users:" + there]
        assert await table.find([(key,) for key in not_there]) == {}
        assert await table.find([]) == {}


async def test_column_that_cannot_be_captured_is_a_failure_that_names_it(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name money)")
    with pytest.raises(ReadFailure, match="column 'name': money prints as lc_monetary says"):
        async with opened(USERS):
            pass


async def test_row_security_is_a_failure_instead_of_missing_rows(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'x')")
    connect().execute("CREATE ROLE reader LOGIN; GRANT SELECT ON users TO reader")
    try:
        connect().execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON users USING (false)")
        async with opened(USERS, "user=reader") as table:
            with pytest.raises(ReadFailure, match="row-level security"):
                await collect(table.pages())
    finally:
        connect().execute("DROP OWNED BY reader; DROP ROLE reader")


async def test_session_is_read_only(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    async with opened(USERS) as table:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await table._connection.rows("DELETE FROM users", ())


async def test_table_that_is_dropped_while_it_is_read_is_a_failure(opened, connect):
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


async def test_lost_connection_is_a_failure_of_one_line(opened, connect):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    async with opened(USERS) as table:
        connect().execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rowtap'")
        with pytest.raises(ReadFailure) as caught:
            await collect(table.pages())
        assert "\n" not in str(caught.value)


async def test_login_that_fails_is_a_failure_of_one_line(configure, database):
    settings = configure(USERS)
    with pytest.raises(ReadFailure, match="password authentication failed") as caught:
        await CanonicalConnection(settings.postgres, "user=scram_user password=wrong", database).__aenter__()
    assert "\n" not in str(caught.value)


def test_rules_are_selected_by_table_name_or_label_in_configured_order(configure, database):
    mails = USERS | {"value": "mail", "redis_key": "mails:{id}"}
    orders = USERS | {"name": "shop.orders", "redis_key": "order:{id}"}
    rules = configure(USERS, mails, orders).rules()
    assert select_rules(rules, []) == rules
    assert select_rules(rules, ["users"]) == rules[:2]
    assert select_rules(rules, ["shop.orders", "public.users"]) == rules, "in the configuration's order"
    assert select_rules(rules, [f"{database}.public.users#mails:{{id}}"]) == [rules[1]]
    assert select_rules(rules, [f"{database}.shop.orders"]) == [rules[2]]
    for name in ("orders", "", "shop.", "a.b.c"):
        with pytest.raises(UsageError, match="there are"):
            select_rules(rules, [name])
    with pytest.raises(UsageError, match="no \\[\\[table\\]\\] is configured"):
        select_rules([], [])


def test_no_login_is_a_usage_error(configure):
    settings = configure(USERS)
    with pytest.raises(UsageError, match="--dsn"):
        bind_rules(settings.postgres, None, settings.rules(), settings.rules())


def test_rule_is_not_captured_if_its_keys_can_be_those_of_a_rule_that_is_not_selected(
    configure, connect, database, postgres
):
    connect().execute("CREATE TABLE users (id text PRIMARY KEY, name text)")
    settings = configure(USERS, USERS | {"redis_key": "users:{id}:x"})
    rules = settings.rules()
    found, problems = bind_rules(settings.postgres, f"user={postgres.user}", rules, rules[1:])
    assert found == {database: []}
    assert len(problems) == 1
    assert "can also be one of" in problems[0]


async def test_table_that_is_dropped_before_it_is_read_is_a_failure(configure, connect, database, postgres):
    connect().execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
    settings = configure(USERS)
    found, _ = bind_rules(settings.postgres, f"user={postgres.user}", settings.rules(), settings.rules())
    connect().execute("DROP TABLE users")
    async with CanonicalConnection(settings.postgres, f"user={postgres.user}", database) as connection:
        with pytest.raises(ReadFailure, match="the table was changed just now"):
            await connection.table(found[database][0])


def test_unreachable_server_is_a_failure_that_names_the_database(configure, database):
    settings = configure(USERS, POSTGRES__PORT=str(free_port()))
    with pytest.raises(ReadFailure, match=f"^{database}: "):
        bind_rules(settings.postgres, "user=me", settings.rules(), settings.rules())
