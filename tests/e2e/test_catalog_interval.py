"""DDL that a worker does not see: another proxy on the same Redis, or no proxy at all. After the interval no key is
stale."""

import time

import psycopg
import pytest

USERS = {"name": "users", "key": "id", "value": "name", "redis_key": "users:{id}"}
ORDERS = {"name": "orders", "key": "id", "value": "name", "redis_key": "orders:{id}"}
INTERVAL = 0.3
SCHEMA = """
    CREATE TABLE owners (id int PRIMARY KEY);
    CREATE TABLE users (id int PRIMARY KEY, name text, title text, owner int);
    CREATE TABLE orders (id int PRIMARY KEY, name text);
    INSERT INTO owners VALUES (1), (2);
    INSERT INTO users VALUES (1, 'Ada', 'Countess', 1), (2, 'Ben', 'Mr', 2), (3, 'Cy', 'Mr', NULL);
    INSERT INTO orders VALUES (1, 'first');
    CREATE FUNCTION upper_name() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        UPDATE users SET name = NEW.name WHERE id = 2 AND pg_trigger_depth() = 1; NEW.name := upper(NEW.name);
        RETURN NEW; END$$;
"""
CROSSWISE = """
    ALTER TABLE users RENAME name TO x;
    ALTER TABLE users RENAME title TO name;
    ALTER TABLE users RENAME x TO title;
"""
PLAYED = {
    "trigger": (
        "CREATE TRIGGER t BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION upper_name()",
        "UPDATE users SET name = 'lower' WHERE id = 1",
    ),
    "columns renamed crosswise": (
        CROSSWISE,
        "UPDATE users SET title = 'unseen' WHERE id = 1",
    ),
    "cascade": (
        "ALTER TABLE users ADD FOREIGN KEY (owner) REFERENCES owners ON DELETE CASCADE",
        "DELETE FROM owners WHERE id = 1",
    ),
}


@pytest.fixture
def proxies(connect, rowtap):
    """Two proxies that share a Redis; the database is read into it by both."""
    connect().execute(SCHEMA)
    found = [
        rowtap([USERS, ORDERS], {"postgres": {"catalog_interval": f"{INTERVAL}s"}, "proxy": {"shutdown_timeout": "1s"}})
        for _ in range(2)
    ]
    sessions = [proxy.connect() for proxy in found]
    for proxy, session in zip(found, sessions, strict=True):
        session.execute("UPDATE users SET name = name; UPDATE orders SET name = name")
        proxy.settle()
    return found, sessions


def read(session):
    session.execute("SELECT id, name FROM users")
    session.execute("SELECT id, name FROM orders")


def wait_for_keys(proxies, session, redis_client):
    """Read until every row's key is there."""
    deadline = time.monotonic() + 10
    while len(keys(redis_client)) < 4:
        assert time.monotonic() < deadline, keys(redis_client)
        read(session)
        for proxy in proxies:
            proxy.settle()


def keys(redis_client):
    """What Redis holds of the tables, by key."""
    found = [key for key in redis_client.scan_iter() if key.startswith((b"users:", b"orders:"))]
    return {key.decode(): redis_client.get(key).decode() for key in found}


def stale(redis_client, connect):
    """Keys that differ from their rows: their values, and the rows."""
    rows = connect().execute(
        "SELECT 'users:' || id, name FROM users UNION ALL SELECT 'orders:' || id, name FROM orders"
    )
    expected = dict(rows.fetchall())
    return {key: (value, expected.get(key)) for key, value in keys(redis_client).items() if value != expected.get(key)}


@pytest.mark.parametrize("where", ["other proxy", "no proxy"])
@pytest.mark.parametrize("played", PLAYED)
def test_no_key_is_stale_an_interval_after_ddl_that_was_not_seen(proxies, connect, redis_client, played, where):
    both, (session, other) = proxies
    wait_for_keys(both, session, redis_client)
    definition, write = PLAYED[played]
    before = keys(redis_client)["orders:1"]
    (other if where == "other proxy" else connect()).execute(definition)
    session.execute(write)
    session.execute("SELECT name FROM users WHERE id = 2")
    time.sleep(INTERVAL)
    session.execute("SELECT 1")
    session.execute("SELECT 1")
    for proxy in both:
        proxy.settle()
    assert stale(redis_client, connect) == {}
    assert keys(redis_client)["orders:1"] == before, "its facts have not changed"
    wait_for_keys(both[:1], session, redis_client) if played != "cascade" else read(session)
    both[0].settle()
    assert stale(redis_client, connect) == {}


def test_transaction_that_wrote_before_the_ddl_was_found_flushes_when_it_commits(proxies, connect, redis_client):
    both, (session, other) = proxies
    wait_for_keys(both, session, redis_client)
    definition, write = PLAYED["cascade"]
    other.execute(definition)
    writer = both[0].connect(autocommit=False)
    writer.execute(write)
    time.sleep(INTERVAL)
    session.execute("SELECT 1")
    session.execute("SELECT 1")
    wait_for_keys(both, session, redis_client)
    writer.commit()
    for proxy in both:
        proxy.settle()
    assert stale(redis_client, connect) == {}


@pytest.mark.parametrize("settings", ["enable_nestloop=off", "enable_seqscan=off", "work_mem=64kB", "jit_above_cost=0"])
def test_catalog_is_learned_over_a_session_with_any_planner_settings(connect, rowtap, redis_client, settings):
    connect().execute(SCHEMA)
    proxy = rowtap([USERS])
    with psycopg.connect(proxy.dsn() + f" options='-c {settings} -c enable_hashjoin=off'") as session:
        read(session)
        proxy.settle()
    assert keys(redis_client)["users:1"] == "Ada"
