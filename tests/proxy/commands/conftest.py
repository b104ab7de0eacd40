"""Configurations that mean the servers of the fixtures."""

import json

import pytest

from proxy.config.load import load
from proxy.demo.servers import HOST


@pytest.fixture
def configure(postgres, database, redis_url):
    """`configure(table, …, NAME="value")`: a configuration of these [[table]] entries. `NAME` is a variable of the
    environment, without its prefix."""

    def make(*tables, **environment):
        variables = {
            "POSTGRES__HOST": HOST,
            "POSTGRES__PORT": str(postgres.port),
            "POSTGRES__DATABASE": database,
            "REDIS__URL": redis_url,
            "TABLE": json.dumps(tables),
        }
        return load(None, None, {f"ROWTAP_{name}": value for name, value in (variables | environment).items()})

    return make
