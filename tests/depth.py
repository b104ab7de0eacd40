"""How long a run may take: `DEEP=1 make suite` streams gigabytes and repeats tests until rare errors would show.

The default is the short form, which runs for every commit. A test with a number that depends on it uses `depth(short,
deep)`; a test without a short form is marked `only_deep`.
"""

import os
from typing import TypeVar

import pytest

Quantity = TypeVar("Quantity")

DEEP = os.environ.get("DEEP", "") not in ("", "0")

only_deep = pytest.mark.skipif(not DEEP, reason="takes long: DEEP=1 runs it")
patient = pytest.mark.timeout(3600 if DEEP else 120)
"""For tests whose deep form takes longer than the timeout of other tests."""


def depth(short: Quantity, deep: Quantity) -> Quantity:
    """`deep` with DEEP=1, otherwise `short`."""
    return deep if DEEP else short
