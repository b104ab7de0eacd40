"""Backend messages: what tests/protocol/test_message.py does not test for all messages alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import backend, codes
from protocol.backend import FieldDescription
from protocol.errors import EncodeError, MessageError
from tests.protocol import strategies


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (backend.BackendKeyData, b"\0\0\0\x01abc"),
        (backend.BackendKeyData, b"\0\0\0\x01" + b"k" * 257),
        (backend.BackendKeyData, b"\0\0\0"),
        (backend.ParameterStatus, b"name\0value"),
        (backend.NegotiateProtocolVersion, b"\0\x03\0\0\xff\xff\xff\xff"),
        (backend.NegotiateProtocolVersion, b"\0\x03\0\0\0\0\0\x02a\0"),
        (backend.NegotiateProtocolVersion, b"\0\x03\0\0\x7f\xff\xff\xffa\0"),
        (backend.ReadyForQuery, b""),
        (backend.ReadyForQuery, b"X"),
        (backend.ReadyForQuery, b"II"),
        (backend.RowDescription, b""),
        (backend.RowDescription, b"\0\x01"),
        (backend.RowDescription, b"\0\x01name"),
        (backend.RowDescription, b"\0\x01name\0" + bytes(17)),
        (backend.RowDescription, b"\0\x01name\0" + bytes(19)),
        (backend.RowDescription, b"\xff\xff" + bytes(19)),
        (backend.DataRow, b""),
        (backend.DataRow, b"\0"),
        (backend.DataRow, b"\0\x01\0\0\0"),
        (backend.DataRow, b"\0\x01\0\0\0\x02a"),
        (backend.DataRow, b"\0\x01\x7f\xff\xff\xffa"),
        (backend.DataRow, b"\0\x01\xff\xff\xff\xfe"),
        (backend.DataRow, b"\0\0\0"),
        (backend.DataRow, b"\xff\xff\0\0\0\0"),
        (backend.CommandComplete, b""),
        (backend.CommandComplete, b"SELECT 1"),
        (backend.CommandComplete, b"SELECT\x001\0"),
        (backend.ErrorResponse, b""),
        (backend.ErrorResponse, b"SERROR\0"),
        (backend.ErrorResponse, b"SERROR"),
        (backend.NoticeResponse, b"\0\0"),
        (backend.NotificationResponse, b"\0\0\0\x01ch\0"),
        (backend.ParameterDescription, b"\0\x02\0\0\0\x17"),
        (backend.CopyInResponse, b""),
        (backend.CopyInResponse, b"\0\0\x01"),
        (backend.FunctionCallResponse, b"\xff\xff\xff\xfe"),
        (backend.FunctionCallResponse, b"\0\0\0\x02a"),
        (backend.ParseComplete, b"\0"),
    ],
)
def test_malformed_body_is_refused_without_quoting_it(message, body):
    with pytest.raises(MessageError) as caught:
        message.decode(body)
    for content in ("name", "SELECT", "ERROR"):
        assert content not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        backend.BackendKeyData(1, b"abc"),
        backend.BackendKeyData(1, b"k" * 257),
        backend.BackendKeyData(2**31, b"abcd"),
        backend.ParameterStatus(b"a", b"\0"),
        backend.NegotiateProtocolVersion(3 << 16, (b"\0",)),
        backend.RowDescription((FieldDescription(b"\0"),)),
        backend.RowDescription((FieldDescription(b"", table_oid=-1),)),
        backend.RowDescription((FieldDescription(b"", column_number=2**15),)),
        backend.RowDescription((FieldDescription(b""),) * 65_536),
        backend.ErrorResponse(((0, b""),)),
        backend.ErrorResponse(((256, b""),)),
        backend.NoticeResponse(((codes.MESSAGE, b"\0"),)),
        backend.CopyOutResponse(256),
    ],
)
def test_fields_out_of_range_cannot_be_encoded(message):
    with pytest.raises(EncodeError):
        bytes(message)


class TestColumnValues:
    @given(strategies.values, st.binary(max_size=20), st.binary(max_size=20))
    def test_row_in_the_middle_of_a_buffer_is_read(self, values, before, after):
        body = backend.DataRow(values).body()
        found = backend.column_values(before + body + after, len(before), len(before) + len(body))
        assert found == values
        assert all(type(value) is bytes for value in found if value is not None)

    @given(strategies.values.filter(bool), st.data())
    def test_bytes_behind_the_body_are_never_read_as_a_column(self, values, data):
        """The bytes of the next message follow in the buffer."""
        body = backend.DataRow(values).body()
        end = data.draw(st.integers(0, len(body) - 1))
        with pytest.raises(MessageError):
            backend.column_values(body + bytes(20), 0, end)
        with pytest.raises(MessageError):
            backend.column_values(body + bytes(20), 0, len(body) + 1)

    def test_row_of_1600_columns_is_read(self):
        body = backend.DataRow([b"x", None] * 800).body()
        assert backend.column_values(body, 0, len(body)) == [b"x", None] * 800

    def test_row_of_65535_columns_is_read(self):
        body = b"\xff\xff" + b"\xff\xff\xff\xff" * 65_535
        assert backend.column_values(body, 0, len(body)) == [None] * 65_535

    def test_row_without_columns_is_read(self):
        assert backend.column_values(b"\0\0", 0, 2) == []


def test_row_description_of_65535_columns_is_read():
    message = backend.RowDescription((FieldDescription(b""),) * 65_535)
    assert backend.RowDescription.decode(message.body()) == message


def test_unterminated_column_name_is_refused_in_linear_time():
    """The search for each column name's NUL begins at that column, not at the start of the body."""
    body = b"\xff\xff" + (b"n" * 10 + b"\0" + b"x" * 18) * 65_534 + b"n" * 100
    with pytest.raises(MessageError, match="ends within column 65535 of 65535"):
        backend.RowDescription.decode(body)


def test_frames_encoded_once_have_the_manuals_bytes():
    assert backend.PARSE_COMPLETE_FRAME == b"1\0\0\0\x04"
    assert backend.BIND_COMPLETE_FRAME == b"2\0\0\0\x04"
    assert backend.CLOSE_COMPLETE_FRAME == b"3\0\0\0\x04"
    assert backend.NO_DATA_FRAME == b"n\0\0\0\x04"
    assert backend.PORTAL_SUSPENDED_FRAME == b"s\0\0\0\x04"
    assert backend.EMPTY_QUERY_RESPONSE_FRAME == b"I\0\0\0\x04"
    assert backend.READY_IDLE_FRAME == b"Z\0\0\0\x05I"
    assert backend.READY_IN_TRANSACTION_FRAME == b"Z\0\0\0\x05T"
    assert backend.READY_FAILED_TRANSACTION_FRAME == b"Z\0\0\0\x05E"


def test_first_values_ignores_the_bytes_behind_them():
    body = backend.DataRow([b"1", None, b"", b"x"]).body()
    for count in range(6):
        assert backend.first_values(b"." + body, 1, 1 + len(body), count) == [b"1", None, b"", b"x"][:count]
    assert backend.first_values(body[:-1], 0, len(body) - 1, 3) == [b"1", None, b""], "the rest is not checked"
    with pytest.raises(MessageError):
        backend.first_values(body, 0, len(body) - 1, 4)
