"""How many keys are stale when no change is pending: Rowtap, Rowtap without fences, and textbook cache-aside.

    .venv/bin/python -m benchmarks.consistency --operations 100000

The workload is that of tests/consistency, in rounds of 500 operations; after each round every key in Redis is compared
with its row. Rowtap runs as two hosts that share one PostgreSQL and one Redis, with random delays of up to `--delay`
seconds to Redis; the clients of cache-aside connect to both servers directly and without delay.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from proxy.demo.servers import HOST, Postgres, Valkey, free_port
from tests.consistency import tables
from tests.consistency.cache_aside import CacheAside
from tests.consistency.rounds import World, jitter
from tests.fix_faults import FaultyLink
from tests.fix_postgres import SETTINGS, fresh_database
from tests.fix_proxy import Proxy

FENCELESS = Path(tables.__file__).with_name("fenceless")
WAYS = ("rowtap", "without fences", "cache-aside")


def main() -> None:
    """Print one line for each of WAYS."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=int, default=20_000, metavar="N", help="for each way")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--delay", type=float, default=0.01, metavar="SECONDS")
    parser.add_argument("--hosts", type=int, default=2, metavar="N")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="of each host")
    parser.add_argument("--only", choices=WAYS, help="one of the ways")
    choices = parser.parse_args()
    print(f"{'':<16}{'stale':>8}{'operations':>12}{'in 100,000':>12}{'seconds':>9}")
    for way in [choices.only] if choices.only else WAYS:
        began = time.monotonic()
        stale, operations = asyncio.run(measure(way, choices))
        rate = stale * 100_000 / operations
        seconds = time.monotonic() - began
        print(f"{way:<16}{stale:>8}{operations:>12}{rate:>12.1f}{seconds:>9.0f}", flush=True)


async def measure(way: str, choices: argparse.Namespace) -> tuple[int, int]:
    """(stale keys found, operations done), with servers of its own."""
    async with contextlib.AsyncExitStack() as stack:
        postgres = stack.enter_context(Postgres(settings=SETTINGS))
        valkey = stack.enter_context(Valkey())
        database = stack.enter_context(fresh_database(postgres))
        world = World(postgres, database, valkey.url)
        more: dict[str, Any] = {"seed": choices.seed, "operations": choices.operations}
        if way == "cache-aside":
            CacheAside.redis_url = valkey.url
            return await world.count([], client=CacheAside, **more)
        make_proxy: Any = Proxy  # The tests have annotations in part only.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = []
        for number in range(choices.hosts):
            link = stack.enter_context(contextlib.closing(FaultyLink(valkey.host, valkey.port)))
            if choices.delay:
                await stack.enter_async_context(jitter(link, Random(choices.seed + number), choices.delay))
            config = {
                "proxy": {"listen": f"{HOST}:{free_port()}", "workers": choices.workers, "shutdown_timeout": "3s"},
                "postgres": {"host": postgres.host, "port": postgres.port, "database": database},
                "redis": {"url": f"redis://{link.host}:{link.port}"},
                "admin": {"listen": f"{HOST}:{free_port()}"},
                "table": tables.RULES,
            }
            environment = {"PYTHONPATH": str(FENCELESS)} if way == "without fences" else {}
            host = make_proxy(directory / f"{number}.toml", config, env=environment, user=postgres.user)
            stack.callback(host.finish)
            host.start()
            hosts.append(host)
        return await world.count(hosts, **more)


if __name__ == "__main__":
    main()
