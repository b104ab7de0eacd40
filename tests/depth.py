"""How much a run may cost: `DEEP=1 make suite` streams gigabytes and repeats for as long as it takes to be sure.

The default is the short form, which every commit runs. What only changes a number uses `depth(short, deep)`; what has
no short form is marked `only_deep`.
"""

import os
from typing import TypeVar

import pytest

Quantity = TypeVar("Quantity")

DEEP = os.environ.get("DEEP", "") not in ("", "0")

only_deep = pytest.mark.skipif(not DEEP, reason="takes long: DEEP=1 runs it")
patient = pytest.mark.timeout(3600 if DEEP else 120)
"""For tests whose deep form takes longer than any test should."""


def depth(short: Quantity, deep: Quantity) -> Quantity:
    """The one or the other."""
    return deep if DEEP else short
