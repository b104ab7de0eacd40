"""The codec's exceptions have one base class."""

import pytest

from protocol import errors


@pytest.mark.parametrize("name", ["FramingError", "MessageError", "StartupError", "EncodeError"])
def test_every_error_is_a_protocol_error(name):
    assert issubclass(getattr(errors, name), errors.ProtocolError)


def test_startup_error_has_an_sqlstate_only_where_postgresql_answers():
    assert errors.StartupError("silently").sqlstate is None
    loud = errors.StartupError("aloud", "0A000")
    assert (str(loud), loud.sqlstate) == ("aloud", "0A000")
