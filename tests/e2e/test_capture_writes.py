"""What writes do: the table "Writes" of docs/capture.md, each row with statements for each effect, sent in every mode
and in every transaction form. All keys are present before; a write that was rolled back must not remove one."""

from typing import NamedTuple

import pytest

from tests.e2e import transaction_forms
from tests.e2e.deployment import deploy
from tests.e2e.statement_client import SEND_MODES, Typed, int4, text
from tests.e2e.tables import ALL_KEYS, CONTENT, RULES, SCHEMA, keys


class Write(NamedTuple):
    """A statement, the keys that are gone once it is committed, the keys that are new, and its parameters."""

    sql: str
    gone: str = ""
    new: str = ""
    arguments: tuple[Typed, ...] = ()


CID = (text("Eve"), int4(1))
IDS = (text("Eve"), Typed("int4[]", ["1", "2"]))
CASES = [
    # UPDATE … WHERE key = constant: stored.
    Write("UPDATE users SET name = 'Eve' WHERE id = 1"),
    Write("UPDATE users SET name = $1 WHERE id = $2", arguments=CID),
    Write("UPDATE public.users AS u SET name = $1, age = age + 1 WHERE u.id = $2 AND age > 1", arguments=CID),
    Write("UPDATE users SET (name, age) = ($1, 3) WHERE id = $2::int", arguments=CID),
    Write("UPDATE ONLY users SET name = $1::text WHERE ($2 = id)", arguments=CID),
    Write("UPDATE users SET name = 'O''Hara \\ \"x\" é' WHERE id = 1"),
    Write("UPDATE users SET name = E'tab\\tnew\\nline' WHERE id = 1"),
    Write("UPDATE users SET name = U&'d\\0061t\\+000061' WHERE id = 1", "users:1"),
    Write("UPDATE users SET name = $tag$it's $1$tag$ WHERE id = 1"),
    Write("UPDATE users SET name = 'a' /* , name = 'b' */ WHERE id = 1 -- AND false\n"),
    Write("UPDATE users SET name = '' WHERE id = 1"),
    Write("UPDATE users SET name = 'Eve' WHERE id = 1 AND name = 'absent'"),
    Write("UPDATE users SET name = 'Eve' WHERE id = 99"),
    Write('UPDATE "Odd Table" SET "Val ue" = $1 WHERE "Key" = $2', arguments=CID),
    Write("UPDATE codes SET label = $1 WHERE code = $2", arguments=(text("L"), text("b:%"))),
    Write("UPDATE parts SET v = $1 WHERE id = $2", arguments=CID),
    Write("UPDATE pets SET owner = 2 WHERE id = 1"),
    Write("UPDATE users SET age = 3 WHERE id = 1"),
    Write("UPDATE users SET age = age * 2"),
    Write("UPDATE users SET name = NULL WHERE id = 1", "users:1"),
    Write("UPDATE users SET name = $1 WHERE id = $2", "users:1", arguments=(Typed("text", None), int4(1))),
    # Not a constant, or not certain what is stored: evicted.
    Write("UPDATE users SET name = name || '!' WHERE id = 1", "users:1"),
    Write("UPDATE users SET name = upper($1) WHERE id = $2", "users:1", arguments=CID),
    Write("UPDATE users SET name = DEFAULT WHERE id = 1", "users:1"),
    Write("UPDATE users SET name = (SELECT 'x') WHERE id = 1", "users:1"),
    Write("UPDATE users SET name = n.t || '' FROM notes n WHERE n.id = users.id AND users.id = 1", "users:1"),
    Write("UPDATE users SET name = $1::varchar(2) WHERE id = $2", "users:1", arguments=CID),
    Write("UPDATE users SET name = name || 'x' WHERE id = 99", ""),
    Write("UPDATE shouted SET v = 'quiet' WHERE id = 1", "shouted:1"),
    Write("UPDATE doubled SET n = 7 WHERE id = 1", "doubled:1"),
    Write("UPDATE ruled SET v = 'x' WHERE id = 1", "ruled:* users:*"),
    # Several keys.
    Write("UPDATE users SET name = 'same' WHERE id IN (1, 2)", ""),
    Write("UPDATE users SET name = 'same' WHERE id IN (1, 99)", "users:1"),
    Write("UPDATE users SET name = $1 WHERE id = ANY($2)", arguments=IDS),
    Write("UPDATE users SET name = $1 WHERE id = ANY($2::int[])", arguments=IDS),
    Write("UPDATE users SET name = $1 WHERE id = ANY($2) AND age < 30", "users:1 users:2", arguments=IDS),
    Write("UPDATE users SET name = name || '?' WHERE id IN (1, 3)", "users:1 users:3"),
    Write("UPDATE users SET name = name || '?' WHERE id = ANY('{1,2}')", "users:1 users:2"),
    Write("UPDATE users SET name = 'x' WHERE id = 1 OR id = 2", "users:*"),
    # The key changes.
    Write("UPDATE users SET id = 9 WHERE id = 1", "users:1"),
    Write("UPDATE users SET id = $2, name = $1 WHERE id = 3", "users:3", arguments=(text("n"), int4(30))),
    Write("UPDATE users SET id = id + 10 WHERE id = 1", "users:*"),
    Write("UPDATE users SET id = id + 10", "users:*"),
    Write("UPDATE parts SET id = 12 WHERE id = 1", "parts:1"),
    # Unknown rows.
    Write("UPDATE users SET name = 'same'", "users:*"),
    Write("UPDATE users SET name = 'same' WHERE age > 30", "users:*"),
    Write("UPDATE users SET name = 'same' WHERE age > 300", ""),
    Write("UPDATE users SET name = t FROM notes WHERE notes.id = users.id", "users:*"),
    Write("UPDATE users SET name = 'x' WHERE id = (SELECT 1)", "users:*"),
    Write("UPDATE users SET name = 'x' WHERE NOT id = 1", "users:*"),
    Write("UPDATE users SET name = 'x' WHERE id::text = '1'", "users:*"),
    Write("UPDATE users SET name = 'x' WHERE id BETWEEN 1 AND 2", "users:*"),
    Write("DELETE FROM users WHERE age < 30", "users:*"),
    Write("DELETE FROM users USING notes WHERE notes.id = users.id AND notes.t = 'Ada'", "users:*"),
    # RETURNING.
    Write("UPDATE users SET name = name || '+' RETURNING id, name"),
    Write("UPDATE users SET name = name || '+' WHERE age > 30 RETURNING *"),
    Write("UPDATE users AS u SET name = upper($1) WHERE id = $2 RETURNING u.name, u.id", arguments=CID),
    Write("UPDATE users SET name = name || '+' WHERE age < 30 RETURNING id", "users:2"),
    Write("UPDATE users SET name = name || '+' WHERE id = 1 RETURNING name || '' AS name, id", "users:1"),
    Write("UPDATE users SET name = name || '+' RETURNING old.id, old.name", "users:*"),
    Write("UPDATE users SET name = name || '+' WHERE id = 1 RETURNING old.id, old.name", "users:1"),
    Write("UPDATE users SET name = name || '+' WHERE id = 1 RETURNING old.name, new.id", "users:1"),
    Write("UPDATE users SET name = name || '+' RETURNING new.id, new.name"),
    Write("UPDATE users SET id = id + 10 WHERE id < 2 RETURNING id, name", "users:*"),
    Write("UPDATE shouted SET v = 'quiet' RETURNING id, v", "shouted:*"),
    Write("UPDATE parts SET v = v || '+' RETURNING id, v"),
    Write("INSERT INTO users (id, name) VALUES (7, lower('NEW')) RETURNING id, name", new="users:7"),
    Write("INSERT INTO users VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'up' RETURNING id, name"),
    Write("DELETE FROM users WHERE age > 30 RETURNING id, name", "users:1 users:3"),
    Write("DELETE FROM users RETURNING name", "users:*"),
    Write("DELETE FROM users WHERE id = 1 RETURNING old.id, new.name", "users:1"),
    # DELETE.
    Write("DELETE FROM users WHERE id = 1", "users:1"),
    Write("DELETE FROM users WHERE id = $1", "users:1", arguments=(int4(1),)),
    Write("DELETE FROM users WHERE id IN (1, 2)", "users:1 users:2"),
    Write("DELETE FROM users AS u WHERE u.id = ANY($1)", "users:1 users:2", arguments=(Typed("int4[]", ["1", "2"]),)),
    Write("DELETE FROM users WHERE id = 99"),
    Write("DELETE FROM codes WHERE code = $1", "code/a", arguments=(text("a"),)),
    Write("DELETE FROM parts WHERE id = 11", "parts:11"),
    Write("DELETE FROM parts_low WHERE id = 1", "parts:1"),
    # INSERT.
    Write("INSERT INTO users VALUES (7, 'Gus')", new="users:7"),
    Write("INSERT INTO users (name, id) VALUES ($1, $2)", new="users:9", arguments=(text("Ivy"), int4(9))),
    Write("INSERT INTO users (id, name) VALUES (7, 'Gus'), (8, 'Hal')", new="users:7 users:8"),
    Write("INSERT INTO users (id) VALUES (7)"),
    Write("INSERT INTO users SELECT id + 20, t FROM notes WHERE id = 1"),
    Write("INSERT INTO users (id, name) VALUES (nextval('numbers') + 100, 'seq')"),
    Write("INSERT INTO users (id, name) VALUES (1, 'x') ON CONFLICT DO NOTHING"),
    Write("INSERT INTO users (id, name) VALUES (7, 'x') ON CONFLICT DO NOTHING", new="users:7"),
    Write("INSERT INTO users (id, name) VALUES (1, 'x'), (7, 'y') ON CONFLICT (id) DO NOTHING"),
    Write("INSERT INTO shouted VALUES (9, 'loud')"),
    Write("INSERT INTO parts VALUES (12, 'new')", new="parts:12"),
    Write("INSERT INTO parts_low VALUES (5, 'new')"),
    # Upsert.
    Write("INSERT INTO users (id, name) VALUES (1, 'up') ON CONFLICT (id) DO UPDATE SET name = 'x'", "users:1"),
    Write(
        "INSERT INTO users AS u (id, name) VALUES ($2, $1) ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name || '+'",
        "users:1",
        arguments=CID,
    ),
    Write("INSERT INTO users (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET age = 1"),
    Write(
        "INSERT INTO users (id, name) SELECT id, 'x' FROM notes WHERE id = 1 ON CONFLICT (id) DO UPDATE SET name = ''",
        "users:*",
    ),
    Write("INSERT INTO users (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET id = 40", "users:*"),
    # MERGE.
    Write(
        "MERGE INTO users u USING notes n ON u.id = n.id AND n.id = 1 WHEN MATCHED THEN UPDATE SET name = n.t || '!'",
        "users:*",
    ),
    Write("MERGE INTO users u USING notes n ON u.id = n.id AND n.id = 1 WHEN MATCHED THEN DELETE", "users:*"),
    Write(
        "MERGE INTO users u USING (VALUES (1, 'm')) AS n (id, t) ON u.id = n.id "
        "WHEN MATCHED THEN UPDATE SET name = n.t RETURNING u.id, u.name"
    ),
    Write(
        "MERGE INTO users u USING notes n ON u.id = n.id AND n.id = 7 "
        "WHEN NOT MATCHED AND n.id = 7 THEN INSERT (id, name) VALUES (n.id, n.t)"
    ),
    # Data-modifying CTEs.
    Write("WITH w AS (UPDATE users SET name = 'cte' WHERE id = 1 RETURNING id) SELECT count(*) FROM w", "users:1"),
    Write("WITH w AS (UPDATE users SET name = 'cte' WHERE id = 1) SELECT 1 WHERE false", "users:1"),
    Write("WITH w AS (DELETE FROM users WHERE age > 30 RETURNING *) SELECT id, name FROM w", "users:*"),
    Write(
        "WITH w AS (DELETE FROM notes RETURNING *) UPDATE users SET name = w.t FROM w WHERE w.id = 1 AND users.id = 1",
        "users:1",
    ),
    Write("WITH w AS (INSERT INTO notes VALUES (1, 'x') RETURNING id) UPDATE users SET name = 'y' WHERE id = 1"),
    Write(
        "WITH a AS (UPDATE users SET name = '' WHERE id = 1), b AS (UPDATE users SET name = '' WHERE id = 2) SELECT 1",
        "users:1 users:2",
    ),
    Write(
        "WITH a AS (UPDATE users SET name = '' WHERE id = 1 RETURNING id) SELECT u.id, u.name FROM users u",
        "users:1",
    ),
    Write("WITH a AS (SELECT 1) DELETE FROM users WHERE id = 2", "users:2"),
    # The table is written through a view, a partition, a parent or a foreign key.
    Write("UPDATE user_names SET name = 'v' WHERE id = 1", "users:*"),
    Write("DELETE FROM user_names WHERE id = 1", "users:*"),
    Write("UPDATE parts_low SET v = 'direct' WHERE id = 1", "parts:1"),
    Write("UPDATE parts_low SET v = 'direct'", "parts:*"),
    Write("UPDATE elder SET v = 'from above' WHERE id = 1", "younger:1"),
    Write("UPDATE elder SET v = 'from above'", "younger:*"),
    Write("UPDATE ONLY elder SET v = 'from above'", ""),
    Write("DELETE FROM owners WHERE id = 1", "pets:*"),
    Write("UPDATE owners SET id = 5 WHERE id = 1", "pets:*"),
    Write("UPDATE owners SET name = 'x' WHERE id = 1"),
    Write("TRUNCATE users", "users:*"),
    Write("TRUNCATE owners CASCADE", "pets:* *"),
    Write("TRUNCATE parts_low", "parts:*"),
    # Other tables.
    Write("UPDATE notes SET t = 'x' WHERE id = 1"),
    Write("UPDATE other.users SET name = 'x' WHERE id = 1"),
    Write("DELETE FROM other.users"),
    Write("TRUNCATE other.users"),
    Write("INSERT INTO notes SELECT id, name FROM users"),
    Write("SELECT id, name INTO kept FROM users"),
    Write("CREATE TEMP TABLE kept AS SELECT id, name FROM users"),
]


@pytest.fixture(scope="module")
def deployment(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("writes")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        found.reset(warm=False)
        yield found


@pytest.fixture
def session(deployment):
    return deployment.session()


def keys_after(case):
    gone = ALL_KEYS if "*" in case.gone.split() else keys(case.gone)
    return (ALL_KEYS - gone) | keys(case.new)


@pytest.mark.parametrize(
    ("case", "mode", "form"),
    [
        pytest.param(case, mode, form, id=f"{mode}-{form.__name__}-{case.sql[:90]}")
        for case, mode, form in transaction_forms.combinations(CASES, SEND_MODES, every=3)
    ],
)
def test_write_leaves_exactly_the_expected_keys(deployment, session, case, mode, form):
    deployment.reset(warm=True)
    deployment.direct.simple("DROP TABLE IF EXISTS kept")
    session.simple("DROP TABLE IF EXISTS pg_temp.kept")
    committed = form(session, getattr(session, mode), case.sql, case.arguments)
    assert deployment.settle_and_check() == (keys_after(case) if committed else ALL_KEYS)
