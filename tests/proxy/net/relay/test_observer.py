"""What fits the shapes a relay asks for."""

import pytest

from cache.capture.database import CatalogQuestion
from proxy.net.relay.observer import CatalogQuery, Observer
from proxy.process.unobserved_session import UnobservedSession
from proxy.session.session import Session
from tests.proxy.conftest import Recorder


def asked_for(shape):
    return {name for name in vars(shape) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Session, UnobservedSession, Recorder])
def test_observers_have_all_the_relay_asks_for(kind):
    """mypy compares the types; that none of the names is missing holds for what tests put in their place as well."""
    given = set(dir(kind)) | set(kind.__init__.__code__.co_names)
    assert asked_for(Observer) - given == set()


def test_catalog_queries_have_all_the_relay_asks_for():
    assert asked_for(CatalogQuery) == {"query", "answer"}
    assert asked_for(CatalogQuery) <= set(dir(CatalogQuestion))
