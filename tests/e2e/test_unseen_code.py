"""After code that cannot be seen, an unqualified name may mean a temporary relation: a write by it evicts."""

import pytest

from tests.e2e.deployment import deploy
from tests.e2e.test_meaning import run

pytestmark = pytest.mark.measured

SCHEMA = """
    CREATE TABLE users (id int PRIMARY KEY, name text);
    CREATE FUNCTION unseen() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
"""
CONTENT = "DELETE FROM users; INSERT INTO users VALUES (1, 'one'), (2, 'two');"
RULES = [{"name": "users", "key": "id", "value": "name"}]
CREATE_UNSEEN = "DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE us'||'ers (id int PRIMARY KEY, name text)'; END $$"
EVIL = "UPDATE users SET name = 'EVIL' WHERE id = 1"


@pytest.fixture(scope="module", params=["postgres", "postgres15"])
def running(request, valkey, tmp_path_factory):
    postgres = request.getfixturevalue(request.param)
    directory = tmp_path_factory.mktemp("unseen")
    with deploy(postgres, valkey, directory, schema=SCHEMA, rules=RULES, content=CONTENT) as found:
        found.direct.simple(f"CREATE ROLE guest_{found.database} LOGIN")
        try:
            yield found
        finally:
            found.direct.simple(f"DROP ROLE guest_{found.database}")


@pytest.fixture
def deployment(running):
    running.reset(warm=True)
    return running


def held(deployment):
    deployment.settle()
    return {key.decode(): value for key, value in deployment.held().items()}


@pytest.mark.parametrize("mode", ["simple", "text", "binary", "prepared", "pipelined"])
@pytest.mark.parametrize("around", [("", ""), ("BEGIN", "COMMIT"), ("BEGIN", "ROLLBACK")])
def test_guest_cannot_store_through_a_temporary_table_made_unseen(deployment, mode, around):
    session = deployment.connect(user=f"guest_{deployment.database}")
    begin, end = around
    run(session, *filter(None, [begin, CREATE_UNSEEN]))
    run(session, "INSERT INTO pg_temp.users VALUES (1, 'x')")
    answer = getattr(session, mode)(EVIL)
    assert not answer.errors, answer
    run(session, *filter(None, [end]))
    deployment.settle_and_check()


@pytest.mark.parametrize("end", ["", "; COMMIT", "; ROLLBACK"])
def test_guest_cannot_store_through_a_temporary_table_made_in_the_same_query(deployment, end):
    session = deployment.connect(user=f"guest_{deployment.database}")
    begin = "BEGIN; " if end else ""
    run(session, f"{begin}{CREATE_UNSEEN}; INSERT INTO pg_temp.users VALUES (1, 'x'); {EVIL}{end}")
    deployment.settle_and_check()


def test_guest_cannot_store_after_unseen_code_that_committed_and_failed(deployment):
    session = deployment.connect(user=f"guest_{deployment.database}")
    assert session.simple(CREATE_UNSEEN.replace("END $$", "COMMIT; RAISE 'failed'; END $$")).errors
    run(session, "INSERT INTO pg_temp.users VALUES (1, 'x')", EVIL)
    deployment.settle_and_check()


def test_write_by_name_evicts_after_unseen_code_and_stores_again_after_discard_all(deployment):
    session = deployment.connect()
    run(session, "SELECT unseen()", "UPDATE users SET name = 'new' WHERE id = 1")
    assert set(held(deployment)) == {"users:2"}
    run(session, "UPDATE public.users SET name = 'newer' WHERE id = 1")
    assert held(deployment)["users:1"] == b"newer"
    run(session, "DISCARD ALL", "UPDATE users SET name = 'newest' WHERE id = 1")
    assert held(deployment)["users:1"] == b"newest"
    run(session, "SELECT pg_notify('a', 'b'), lastval() FROM (SELECT setseed(0)) s WHERE false")
    run(session, "UPDATE users SET name = 'last' WHERE id = 1")
    assert held(deployment)["users:1"] == b"last"
    deployment.check()


@pytest.mark.parametrize("path", ["pg_temp, public", "public, pg_temp"])
def test_guest_cannot_store_through_a_table_created_where_the_search_path_begins_with_temporary_ones(deployment, path):
    session = deployment.connect(user=f"guest_{deployment.database}")
    session.simple(f"SET search_path = {path}")
    session.simple("CREATE TABLE users (id int PRIMARY KEY, name text)")  # fails where it is not temporary
    session.simple("INSERT INTO pg_temp.users VALUES (1, 'x')")
    session.simple(EVIL)
    deployment.settle_and_check()
