"""The lists of functions are what a real server's pg_proc says."""

import psycopg
import pytest

from cache.catalog.functions import HARMLESS_VOLATILE, NON_VOLATILE


@pytest.fixture(scope="module")
def volatilities(postgres):
    """Of each function of pg_catalog, by name: the volatilities of its overloads."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        rows = connection.execute("""
            SELECT proname, array_agg(DISTINCT provolatile::text) FROM pg_proc
            WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY proname
        """)
        return {name: set(found) for name, found in rows}


def test_non_volatile_functions_have_no_volatile_overload(volatilities):
    assert {name: volatilities[name] for name in NON_VOLATILE & volatilities.keys() if "v" in volatilities[name]} == {}


def test_harmless_functions_exist_and_are_volatile(volatilities):
    known = HARMLESS_VOLATILE & volatilities.keys()
    assert {name: volatilities[name] for name in known if "v" not in volatilities[name]} == {}
    assert len(known) > 50


def test_no_function_is_in_both_lists():
    assert {"txid_current"} >= NON_VOLATILE & HARMLESS_VOLATILE
