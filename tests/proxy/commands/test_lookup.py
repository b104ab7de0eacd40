"""Catalogs for the commands: assumed, or fetched over a login."""

import sys
import tomllib

import pytest

from proxy.commands import lookup
from proxy.config.load import Config, load
from proxy.demo.servers import HOST


def rules(*entries):
    """The rules of these entries; each is table, key, value, template."""
    lines = ['postgres.database = "app"']
    for table, key, value, template in entries:
        lines += ["[[table]]", f'name = "{table}"', f"key = {key!r}", f"value = {value!r}", f'redis_key = "{template}"']
    return Config.model_validate(tomllib.loads("\n".join(lines))).rules()


def test_assumed_catalog_binds_every_rule():
    found = rules(
        ("users", "id", "name", "users:{id}"),
        ("users", "email", "id", "mail:{email}"),
        ("shop.users", ["a", "b"], "c", "s:{a}:{b}"),
    )
    catalog = lookup.assume_catalog("app", found)
    assert [bound.rule for bound in catalog.bound] == found
    one, two, other = (bound.relation for bound in catalog.bound)
    assert one is two
    assert set(one.columns) == {"id", "name", "email"}
    assert set(one.unique) == {frozenset(["id"]), frozenset(["email"])}
    assert set(catalog.names["users"]) == {one.oid, other.oid}
    assert {link.bound.rule for link in catalog.links[one.oid]} == set(found[:2])
    assert catalog.unbound == ()


def test_fetched_catalog_binds_the_rules_whose_tables_exist(postgres, database, connect):
    connect().execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    settings = load(None, None, {"ROWTAP_POSTGRES__HOST": HOST, "ROWTAP_POSTGRES__PORT": str(postgres.port)})
    found = rules(("users", "id", "name", "users:{id}"), ("absent", "id", "name", "absent:{id}"))
    catalog = lookup.fetch_catalog(settings.postgres, f"user={postgres.user}", database, found)
    assert [bound.rule for bound in catalog.bound] == found[:1]
    assert [rule for rule, _ in catalog.unbound] == found[1:]
    assert catalog.bound[0].key[0].type_oid == 20


def test_unreachable_server_is_a_failure_of_one_line_without_the_password(postgres):
    settings = load(None, None, {"ROWTAP_POSTGRES__HOST": HOST, "ROWTAP_POSTGRES__PORT": "1"})
    with pytest.raises(lookup.LookupFailure) as caught:
        lookup.fetch_catalog(settings.postgres, "user=x password=geheim", "app", [])
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_malformed_connection_string_is_a_failure():
    settings = load(None, None, {})
    with pytest.raises(lookup.LookupFailure, match="missing"):
        lookup.fetch_catalog(settings.postgres, "this is no dsn", "app", [])


@pytest.mark.parametrize("name", ["PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE"])
def test_dsn_or_a_variable_of_libpq_is_a_login(monkeypatch, name):
    assert not lookup.has_login(None)
    assert lookup.has_login("")
    monkeypatch.setenv(name, "x")
    assert lookup.has_login(None)


def test_missing_psycopg_is_a_failure_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(lookup.LookupFailure, match=r"pip install 'rowtap\[tools\]'"):
        lookup.fetch_catalog(load(None, None, {}).postgres, "user=me", "app", [])


def test_configured_certificates_are_used_unless_the_connection_string_names_others():
    variables = {"ROWTAP_POSTGRES__SSLROOTCERT": "/etc/root.crt", "ROWTAP_POSTGRES__SSLMODE": "verify-full"}
    settings = load(None, None, variables).postgres
    assert lookup.connection_parameters(settings, "user=me", "app")["sslrootcert"] == "/etc/root.crt"
    assert lookup.connection_parameters(settings, "sslrootcert=mine", "app")["sslrootcert"] == "mine"
