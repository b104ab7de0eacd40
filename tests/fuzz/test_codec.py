"""Every target with good input gone slightly wrong, and with noise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.profiles import PROFILE
from tests.fuzz.targets import TARGETS, seeds

NUMBERS = [
    b"\0\0",
    b"\0\x01",
    b"\x7f\xff",
    b"\xff\xff",
    b"\0\0\0\x04",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff\xff\xff\xfe",
]


@st.composite
def spoiled(draw, good):
    """One of ``good`` after a few small accidents, several of which keep it readable."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 4))):
        pos = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "drop", "set", "insert", "number", "repeat"])):
            case "cut":
                del data[pos:]
            case "drop":
                del data[pos : pos + draw(st.integers(1, 4))]
            case "set":
                data[pos : pos + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                data[pos:pos] = draw(st.binary(min_size=1, max_size=8))
            case "number":
                number = draw(st.sampled_from(NUMBERS))
                data[pos : pos + len(number)] = number
            case "repeat":
                data[pos:pos] = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_target(name):
    target = TARGETS[name]
    good = seeds(name)
    assert good
    for seed in good:
        target(seed)

    @PROFILE
    @given(spoiled(good) | st.binary(max_size=80))
    def holds(data):
        target(data)

    holds()
