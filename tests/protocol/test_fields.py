"""The fields of a body: every read checks bounds, every write checks ranges."""

import pytest

from protocol import fields
from protocol.errors import EncodeError, MessageError
from protocol.fields import Reader


class TestReader:
    def test_numbers_are_in_network_order(self):
        reader = Reader(b"\x80\x80\x01\x80\x01\xff\xff\xff\xfe\xff\xff\xff\xfe")
        assert reader.byte() == 0x80
        assert reader.uint16() == 0x8001
        assert reader.int16() == 0x8001 - 0x10000
        assert reader.int32() == -2
        assert reader.uint32() == 2**32 - 2
        reader.end()

    @pytest.mark.parametrize(
        ("method", "width"), [("byte", 1), ("int16", 2), ("uint16", 2), ("int32", 4), ("uint32", 4)]
    )
    def test_truncated_number_is_refused(self, method, width):
        for size in range(width):
            with pytest.raises(MessageError, match="ends within a number at byte 0"):
                getattr(Reader(bytes(size)), method)()

    def test_cstring_without_nul_is_refused(self):
        reader = Reader(b"ab\0\0c")
        assert reader.cstring() == b"ab"
        assert reader.cstring() == b""
        with pytest.raises(MessageError, match="string at byte 4 has no end"):
            reader.cstring()

    def test_value_may_be_filled_null_or_empty(self):
        reader = Reader(b"\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0")
        assert [reader.value(), reader.value(), reader.value()] == [b"ab", None, b""]
        reader.end()

    @pytest.mark.parametrize(
        "bad", [b"", b"\0\0\0", b"\0\0\0\x01", b"\0\0\0\x03ab", b"\xff\xff\xff\xfe", b"\x80\0\0\0"]
    )
    def test_truncated_or_negative_value_is_refused(self, bad):
        with pytest.raises(MessageError):
            Reader(bad).value()

    def test_take_beyond_the_end_is_refused_and_consumes_nothing(self):
        reader = Reader(b"abcdef")
        assert reader.take(2) == b"ab"
        with pytest.raises(MessageError, match="ends within 5 bytes at byte 2"):
            reader.take(5)
        assert reader.rest() == b"cdef"
        assert reader.rest() == b""
        reader.end()

    def test_bytes_left_at_the_end_are_refused(self):
        with pytest.raises(MessageError, match="2 bytes too many"):
            Reader(b"ab").end()


class TestValues:
    def test_values_may_be_filled_null_or_empty(self):
        body = b"\0\x03\0\0\0\x01x\xff\xff\xff\xff\0\0\0\0"
        assert fields.values(body, 0, len(body)) == ([b"x", None, b""], len(body))

    def test_values_in_the_middle_of_a_buffer_are_read(self):
        buffer = b"\xff\xff\0\x01\0\0\0\x01x\0\0\0\0"
        assert fields.values(buffer, 2, 9) == ([b"x"], 9)

    @pytest.mark.parametrize("end", range(2, 9))
    def test_nothing_beyond_the_end_is_read(self, end):
        buffer = b"\xff\xff\0\x01\0\0\0\x01x\0\0\0\0"
        with pytest.raises(MessageError):
            fields.values(buffer, 2, end)

    @pytest.mark.parametrize("length", [-2, -(2**31)])
    def test_negative_length_other_than_null_is_refused(self, length):
        body = b"\0\x01" + length.to_bytes(4, "big", signed=True)
        with pytest.raises(MessageError, match=f"value 1 has length {length}"):
            fields.values(body, 0, len(body))

    def test_count_of_65535_values_is_read(self):
        body = b"\xff\xff" + b"\0\0\0\x01x" * 65_535
        found, after = fields.values(body, 0, len(body))
        assert found == [b"x"] * 65_535
        assert after == len(body)

    def test_large_count_without_values_is_refused_at_once(self):
        with pytest.raises(MessageError, match="length of value 1"):
            fields.values(b"\xff\xff", 0, 2)


class TestNumbers:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [(b"\0\0", ()), (b"\0\x01\xff\xff", (-1,)), (b"\0\x03\0\x01\0\x02\x80\0", (1, 2, -(2**15)))],
    )
    def test_count_and_numbers_are_read(self, body, expected):
        assert fields.numbers(body, 0, fields.INT16) == (expected, len(body))

    @pytest.mark.parametrize("bad", [b"", b"\0", b"\0\x01", b"\0\x01\0", b"\0\x02\0\0\0", b"\xff\xff\0\0"])
    def test_truncated_numbers_are_refused(self, bad):
        with pytest.raises(MessageError):
            fields.numbers(bad, 0, fields.INT16)

    def test_count_of_65535_numbers_is_read(self):
        body = b"\xff\xff" + b"\0\0\0\x17" * 65_535
        assert fields.numbers(body, 0, fields.UINT32) == ((23,) * 65_535, len(body))


class TestPacking:
    def test_fields_in_range_are_packed(self):
        assert fields.pack(fields.INT16, -1) == b"\xff\xff"
        assert fields.pack_numbers(fields.UINT32, (1, 2**32 - 1)) == b"\0\x02\0\0\0\x01\xff\xff\xff\xff"
        assert fields.pack_cstring(b"") == b"\0"
        assert fields.pack_value(None) == b"\xff\xff\xff\xff"
        assert fields.pack_values([b"", None]) == b"\0\x02\0\0\0\0\xff\xff\xff\xff"

    @pytest.mark.parametrize(
        ("layout", "number"),
        [
            (fields.BYTE, 256),
            (fields.BYTE, -1),
            (fields.INT16, 2**15),
            (fields.UINT16, -1),
            (fields.INT32, 2**31),
            (fields.UINT32, 2**32),
        ],
    )
    def test_number_out_of_range_cannot_be_packed(self, layout, number):
        with pytest.raises(EncodeError, match="does not fit"):
            fields.pack(layout, number)

    def test_more_than_65535_elements_cannot_be_packed(self):
        with pytest.raises(EncodeError):
            fields.pack_values([None] * 65_536)
        with pytest.raises(EncodeError):
            fields.pack_numbers(fields.INT16, (0,) * 65_536)

    def test_string_with_nul_cannot_be_packed(self):
        with pytest.raises(EncodeError, match="NUL within a string of 3 bytes"):
            fields.pack_cstring(b"a\0b")
