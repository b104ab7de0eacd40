"""Every target of targets.py with valid input that was slightly changed, and with random bytes."""

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
def mutated(draw, valid):
    """One of ``valid`` after up to four small changes, which may leave it valid."""
    data = bytearray(draw(st.sampled_from(valid)))
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
def test_target_holds_for_mutated_samples_and_random_bytes(name):
    target = TARGETS[name]
    valid = seeds(name)
    assert valid
    for seed in valid:
        target(seed)

    @PROFILE
    @given(mutated(valid) | st.binary(max_size=80))
    def holds(data):
        target(data)

    holds()
