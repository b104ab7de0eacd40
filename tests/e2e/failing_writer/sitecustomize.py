"""Rowtap with a fault in its writer: with this directory on PYTHONPATH, the writer of one worker raises an exception
that no rule expects once the file that FAIL_WRITER names is there. That worker removes the file.

Python imports a module of this name when it starts.
"""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from cache.delivery.writer import Writer

_run = Writer.run
_file = Path(os.environ["FAIL_WRITER"])


async def _run_until_the_file_is_there(self: Writer) -> None:
    working = asyncio.create_task(_run(self))
    while not working.done():
        await asyncio.wait((working,), timeout=0.02)
        try:
            _file.unlink()
        except FileNotFoundError:
            continue
        working.cancel()
        await asyncio.wait((working,))
        raise RuntimeError("injected")
    await working


Writer.run = _run_until_the_file_is_there  # type: ignore[method-assign]  # the fault
