"""Catalogs for the commands that have no session: supposed, or asked over a login."""

import tomllib

import pytest

from proxy.commands import lookup
from proxy.config import load as config
from proxy.demo.servers import HOST


def rules(*entries):
    """The rules of these entries; each is table, key, value, template."""
    lines = ['postgres.database = "app"']
    for table, key, value, template in entries:
        lines += ["[[table]]", f'name = "{table}"', f"key = {key!r}", f"value = {value!r}", f'redis_key = "{template}"']
    return config.Config.model_validate(tomllib.loads("\n".join(lines))).rules()


def test_a_supposed_catalog_binds_every_rule():
    found = rules(
        ("users", "id", "name", "users:{id}"),
        ("users", "email", "id", "mail:{email}"),
        ("shop.users", ["a", "b"], "c", "s:{a}:{b}"),
    )
    catalog = lookup.suppose("app", found)
    assert [bound.rule for bound in catalog.bound] == found
    one, two, other = (bound.relation for bound in catalog.bound)
    assert one is two
    assert set(one.columns) == {"id", "name", "email"}
    assert set(one.unique) == {frozenset(["id"]), frozenset(["email"])}
    assert set(catalog.names["users"]) == {one.oid, other.oid}
    assert {link.bound.rule for link in catalog.links[one.oid]} == set(found[:2])
    assert catalog.unbound == ()


def test_what_the_database_says(postgres, database, connect):
    connect().execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    settings = config.load(None, None, {"ROWTAP_POSTGRES__HOST": HOST, "ROWTAP_POSTGRES__PORT": str(postgres.port)})
    found = rules(("users", "id", "name", "users:{id}"), ("absent", "id", "name", "absent:{id}"))
    catalog = lookup.ask(settings.postgres, f"user={postgres.user}", database, found)
    assert [bound.rule for bound in catalog.bound] == found[:1]
    assert [rule for rule, _ in catalog.unbound] == found[1:]
    assert catalog.bound[0].key[0].type_oid == 20


def test_no_answer_is_one_line(postgres):
    settings = config.load(None, None, {"ROWTAP_POSTGRES__HOST": HOST, "ROWTAP_POSTGRES__PORT": "1"})
    with pytest.raises(lookup.LookupFailure) as caught:
        lookup.ask(settings.postgres, "user=x password=geheim", "app", [])
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_connection_string_that_is_none():
    settings = config.load(None, None, {})
    with pytest.raises(lookup.LookupFailure, match="missing"):
        lookup.ask(settings.postgres, "this is no dsn", "app", [])


@pytest.mark.parametrize("name", ["PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE"])
def test_who_has_a_login(monkeypatch, name):
    assert not lookup.has_login(None)
    assert lookup.has_login("")
    monkeypatch.setenv(name, "x")
    assert lookup.has_login(None)
