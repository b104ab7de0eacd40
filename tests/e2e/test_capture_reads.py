"""Which reads fill: the table "Reads" of docs/capture.md, each row with a statement that fills and one that does not,
sent in every mode and in every transaction form."""

from typing import NamedTuple

import pytest

from tests.e2e import transaction_forms
from tests.e2e.deployment import deploy
from tests.e2e.statement_client import SEND_MODES, Typed, int4, text
from tests.e2e.tables import CONTENT, RULES, SCHEMA, keys


class Read(NamedTuple):
    """A statement, the keys present afterwards (none was before), and its parameters."""

    sql: str
    fills: str = ""
    arguments: tuple[Typed, ...] = ()
    keeps_block: bool = True
    """False: it calls functions of unknown effect, so it is tried outside a block only."""


ONE = (int4(1),)
CASES = [
    # The key in the result.
    Read("SELECT id, name FROM users WHERE id = 1", "users:1"),
    Read("SELECT id, name FROM users WHERE id = $1", "users:1", ONE),
    Read("SELECT * FROM users", "users:*"),
    Read("TABLE users", "users:*"),
    Read("SELECT u.* FROM users u WHERE u.age > 30", "users:1 users:3"),
    Read("SELECT u.id AS a, u.name AS b FROM public.users AS u ORDER BY b DESC LIMIT 2", "users:2 users:3"),
    Read('SELECT "Key", "Val ue" FROM "Odd Table"', "odd:*"),
    Read('SELECT o."Val ue", o."Key" FROM "public"."Odd Table" o WHERE "Key" = $1', "odd:1", ONE),
    Read("SELECT code, label FROM codes", "codes:*"),
    Read("SELECT id, v FROM parts WHERE id < 5", "parts:1 parts:2"),
    Read("SELECT id, v FROM younger", "younger:*"),
    Read("SELECT id, v FROM doubled", "doubled:*"),
    Read("SELECT id, owner FROM pets WHERE owner = $1", "pets:1 pets:2", ONE),
    Read("SELECT * FROM users WHERE id IN (1, 3)", "users:1 users:3"),
    Read("SELECT * FROM users WHERE id = ANY($1)", "users:1 users:2", (Typed("int4[]", ["1", "2"]),)),
    Read("SELECT * FROM users WHERE id = 1 OR id = 2", "users:1 users:2"),
    Read("SELECT * FROM users WHERE NOT id = 1", "users:2 users:3"),
    Read("SELECT id, name FROM users FOR UPDATE", "users:*"),
    Read("SELECT DISTINCT id, name FROM users", "users:*"),
    Read("SELECT id, name, count(*) FROM users GROUP BY id, name", "users:*"),
    Read("SELECT id, name, row_number() OVER (ORDER BY age) FROM users", "users:*"),
    Read("SELECT id, name, upper(name), twice(age) FROM users", "users:*"),
    Read("SELECT id, name, nextval('numbers') FROM users", "users:*"),
    Read("SELECT id, name FROM (SELECT * FROM users WHERE age > 30) AS u", "users:1 users:3"),
    Read("WITH u AS (SELECT * FROM users) SELECT id, name FROM u WHERE id < 3", "users:1 users:2"),
    Read("WITH u AS MATERIALIZED (SELECT id, name FROM users) SELECT * FROM u", "users:*"),
    Read("SELECT u.id, u.name, n.t FROM users u JOIN notes n ON n.id = u.id", "users:1 users:2"),
    Read("SELECT u.id, u.name, n.t FROM users u LEFT JOIN notes n USING (id)", "users:*"),
    Read("SELECT u.id, u.name, n.t FROM users u LEFT JOIN notes n ON n.id = u.id", "users:*"),
    Read("SELECT u.id, name, v FROM users u, parts p WHERE p.id = 11 AND u.id = 2", "users:2 parts:11"),
    Read("SELECT u.id, name, p.id, v FROM users u, parts p WHERE p.id = 11 AND u.id = 2", "users:2 parts:11"),
    Read("SELECT u.id, name, x.t FROM users u, LATERAL (SELECT t FROM notes n WHERE n.id = u.id) x", "users:1 users:2"),
    Read("SELECT id, name FROM users WHERE EXISTS (SELECT FROM notes WHERE notes.id = users.id)", "users:1 users:2"),
    Read("SELECT id, name FROM user_names", ""),
    Read("SELECT id, name FROM ONLY users", "users:*"),
    Read("SELECT id, name FROM users TABLESAMPLE BERNOULLI (100)", "users:*"),
    Read("SELECT (users).id, (users).name FROM users", "users:*"),
    Read("SELECT t.name, t.id FROM users AS t (name, id)", "users:*"),  # exchanged aliases
    # The key fixed by WHERE.
    Read("SELECT name FROM users WHERE id = 1", "users:1"),
    Read("SELECT name FROM users WHERE id = $1", "users:1", ONE),
    Read("SELECT name FROM users WHERE $1 = id", "users:1", ONE),
    Read("SELECT name FROM users WHERE id = $1::int", "users:1", ONE),
    Read("SELECT name FROM users WHERE id = CAST($1 AS integer) AND age > 0", "users:1", ONE),
    Read("SELECT name FROM users AS x WHERE x.id = 2", "users:2"),
    Read("SELECT name AS n FROM public.users WHERE public.users.id = 2", "users:2"),
    Read("SELECT name FROM users WHERE (id = 3)", "users:3"),
    Read("SELECT label FROM codes WHERE code = 'a'", "code/a"),
    Read("SELECT label FROM codes WHERE code = $1", "code/b:%", (text("b:%"),)),
    Read("SELECT label FROM codes WHERE code = ''", "code/"),
    Read("SELECT label FROM codes WHERE code = E'\\x61'", "code/a"),
    Read("SELECT label FROM codes WHERE code = $q$a$q$", "code/a"),
    Read("SELECT name FROM users JOIN notes USING (id) WHERE users.id = 1", "users:1"),
    Read("SELECT name, t FROM users u JOIN notes n ON n.id = u.id AND u.id = 1", "users:1"),
    Read("SELECT name FROM users WHERE id = 1 OR id = 1", ""),
    Read("SELECT name FROM users WHERE NOT id <> 1", ""),
    Read("SELECT name FROM users WHERE (id = 1 AND age = 36) OR false", ""),
    Read("SELECT name FROM users WHERE id = 1 IS TRUE", ""),
    Read("SELECT name FROM users WHERE id = 0 + 1", ""),
    Read("SELECT name FROM users WHERE id = 1.0", ""),
    Read("SELECT name FROM users WHERE id::text = '1'", ""),
    Read("SELECT name FROM users WHERE id IN (1)", "users:1"),
    Read("SELECT name FROM users WHERE id IN (1, 2)", ""),
    Read("SELECT name FROM users WHERE id >= 1 AND id <= 1", ""),
    Read("SELECT name FROM users WHERE name = 'Ada'", ""),
    Read("SELECT name FROM users WHERE id = (SELECT 1)", ""),
    Read("SELECT name FROM users u LEFT JOIN notes n ON u.id = 1 WHERE n.t = 'Cyd'", ""),
    Read("SELECT name, id FROM users WHERE id = 99", ""),
    # A value that is not the column.
    Read("SELECT id FROM users WHERE name = 'Ada'", ""),
    Read("SELECT id, upper(name) AS name FROM users", ""),
    Read("SELECT id, name || '' AS name FROM users", ""),
    Read("SELECT id, name::varchar(2) FROM users", ""),
    Read("SELECT id, email AS name FROM users", ""),
    Read("SELECT id, max(name) AS name FROM users GROUP BY id", ""),
    Read("SELECT id + 1 AS id, name FROM users", ""),
    Read("SELECT -id AS id, name FROM users", ""),
    Read("SELECT name, age AS id FROM users", ""),
    Read("SELECT x.id, x.name FROM (SELECT id, lower(name) AS name FROM users) AS x", ""),
    Read("SELECT id, name FROM other.users", ""),
    Read("SELECT users FROM users", ""),
    # A key could be paired with another row's value.
    Read("SELECT a.id, b.name FROM users a, users b", ""),
    Read("SELECT a.id, a.name, b.id, b.name FROM users a JOIN users b ON a.id = b.id", ""),
    Read("SELECT a.id, b.name FROM users a, (SELECT * FROM users) b WHERE a.id <> b.id", ""),
    Read("WITH u AS (SELECT * FROM users) SELECT a.id, b.name FROM u a, u b", ""),
    Read("SELECT name FROM users WHERE id = 1 UNION ALL SELECT name FROM users WHERE id = 2", ""),
    Read("SELECT id, name FROM users UNION SELECT id, t FROM notes", ""),
    Read("SELECT id, name FROM users INTERSECT SELECT id, name FROM users", ""),
    Read("SELECT id, name FROM users EXCEPT SELECT 1, 'Ada'", ""),
    # Columns that are NULL in the result but not in the table.
    Read("SELECT id, name FROM users GROUP BY ROLLUP (id, name)", ""),
    Read("SELECT id, name FROM users GROUP BY CUBE (id, name)", ""),
    Read("SELECT id, name FROM users GROUP BY GROUPING SETS ((id, name), (id))", ""),
    Read("SELECT n.id, u.name FROM notes n LEFT JOIN users u ON u.id = n.id", ""),
    Read("SELECT name FROM notes n LEFT JOIN users u ON u.id = n.id AND u.id = 1", ""),
    Read("SELECT u.id, u.name FROM notes n LEFT JOIN users u ON u.id = n.id", "users:1 users:2"),
    Read("SELECT u.id, u.name FROM users u RIGHT JOIN notes n ON u.id = n.id", "users:1 users:2"),
    Read("SELECT u.id, u.name FROM users u FULL JOIN notes n ON u.id = n.id", "users:*"),
    Read("SELECT name FROM users u FULL JOIN notes n ON u.id = n.id WHERE n.id = 7", ""),
    # Functions of unknown effect.
    Read("SELECT id, name, grow_first() FROM users", "", keeps_block=False),
    Read("SELECT id, name FROM users WHERE grow_first() = 1", "", keeps_block=False),
    # Explained, or without columns of the table in the result.
    Read("EXPLAIN SELECT id, name FROM users", ""),
    Read("EXPLAIN ANALYZE SELECT id, name FROM users", ""),
    Read("SELECT count(*) FROM users", ""),
    Read("SELECT id, t FROM notes WHERE t IN (SELECT name FROM users)", ""),
    Read("VALUES (1, 'Ada')", ""),
    Read("SELECT 1 AS id, 'wrong' AS name", ""),
]


@pytest.fixture(scope="module")
def deployment(postgres, valkey, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reads")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        found.reset(warm=False)
        yield found


@pytest.fixture
def session(deployment):
    return deployment.session()


def test_every_case_is_valid_sql(deployment):
    for case in CASES:
        answer = deployment.direct.text(
            f"PREPARE it AS {case.sql}" if not case.sql.startswith("EXPLAIN") else "SELECT 1"
        )
        assert not answer.errors, (case, answer)
        deployment.direct.simple("DEALLOCATE ALL")


@pytest.mark.parametrize(
    ("case", "mode", "form"),
    [
        pytest.param(case, mode, form, id=f"{mode}-{form.__name__}-{case.sql[:70]}")
        for case, mode, form in transaction_forms.combinations(CASES, SEND_MODES, every=4)
        if case.keeps_block or form is transaction_forms.autocommit
    ],
)
def test_read_fills_exactly_the_expected_keys(deployment, session, case, mode, form):
    deployment.reset(warm=False)
    form(session, getattr(session, mode), case.sql, case.arguments)
    assert deployment.settle_and_check() == keys(case.fills)
