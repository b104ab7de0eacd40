"""As many keys as possible are present: all after every table was read, nearly all while a workload runs."""

import asyncio

import pytest

from tests.consistency import tables, workload
from tests.consistency.invariants import stale
from tests.consistency.sessions import Journal, PreparedTransactions, PsycopgSession


async def test_every_key_is_present_after_every_table_was_read(rowtap, world):
    proxy = rowtap(tables.RULES)
    with proxy.connect() as connection:
        for table in tables.TABLES:
            connection.execute(f"TABLE {table.name}".encode())
    proxy.settle()
    held, rows = world.held(), world.rows()
    assert stale(held, rows) == []
    assert sorted(held) == sorted(rows)


async def test_every_key_is_present_after_tables_are_read_behind_a_workload(rowtap, world, seed):
    """Fences of the finished writes do not refuse the Fills of later reads."""
    proxy = rowtap(tables.RULES)
    await world.round([proxy], seed=seed, operations=800)
    with proxy.connect() as connection:
        for table in tables.TABLES:
            connection.execute(f"TABLE {table.name}".encode())
    proxy.settle()
    assert sorted(world.held()) == sorted(world.rows())


@pytest.mark.timing("samples how many keys are there while six sessions and the sampler compete for the CPU")
async def test_nine_tenths_of_the_keys_are_present_at_95_percent_reads(rowtap, world, seed):
    """95 % reads and 5 % writes by key: at no moment is more than a tenth of the keys absent."""
    proxy = rowtap(tables.RULES)
    journal = Journal()
    with proxy.connect() as connection:
        for table in tables.TABLES:
            connection.execute(f"TABLE {table.name}".encode())
    proxy.settle()
    over = asyncio.Event()

    async def work(number):
        session = PsycopgSession(f"p{number}", proxy.url(), journal, PreparedTransactions())
        try:
            for unit in workload.units(seed, number, reads=0.95, by_key_only=True):
                await session.work(unit)
                if over.is_set():
                    return
        finally:
            await session.close()

    samples = []
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(work(number))
        for _ in range(25):
            await asyncio.sleep(0.08)
            samples.append(await asyncio.to_thread(world.warmth))
        over.set()
    assert journal.operations > 500
    assert sum(samples) < len(samples), "no write was ever seen"
    assert min(samples) >= 0.9, samples
