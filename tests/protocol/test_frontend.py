"""Frontend messages: what tests/protocol/test_message.py does not test for all messages alike."""

import pytest

from protocol import frontend
from protocol.errors import EncodeError, MessageError
from protocol.fields import INT16, pack_numbers


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (frontend.Query, b""),
        (frontend.Query, b"SELECT 1"),
        (frontend.Query, b"SELECT 1\0; DROP\0"),
        (frontend.Parse, b""),
        (frontend.Parse, b"s"),
        (frontend.Parse, b"s\0SELECT"),
        (frontend.Parse, b"s\0SELECT\0\0"),
        (frontend.Parse, b"s\0SELECT\0\0\x01\0\0\0"),
        (frontend.Bind, b""),
        (frontend.Bind, b"p"),
        (frontend.Bind, b"p\0s"),
        (frontend.Bind, b"p\0s\0"),
        (frontend.Bind, b"\0\0\0\x01\0\0\0\0\0"),  # the one format's bytes taken from the parameters' count
        (frontend.Bind, b"\0\0\0\0\0\x01\0\0\0\x04abc\0\0"),  # the parameter's last byte taken from the result formats
        (frontend.Bind, b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        (frontend.Bind, b"\0\0\0\0\xff\xff\0\0"),
        (frontend.Bind, b"\0\0\0\0\0\0\0\x02\0\0"),
        (frontend.Describe, b"S"),
        (frontend.Describe, b"X\0"),
        (frontend.Describe, b"\0\0"),
        (frontend.Describe, b"Sa\0b\0"),
        (frontend.Close, b""),
        (frontend.Close, b"s\0"),
        (frontend.Close, b"Pfour"),
        (frontend.Execute, b"\0\0\0\0"),
        (frontend.Execute, b"p\0\0\0\0\0\0"),
        (frontend.Execute, b"pppp\0"),
        (frontend.Execute, b"ppppp"),
        (frontend.FunctionCall, b"\0\0\0"),
        (frontend.FunctionCall, b"\0\0\0\x01\0\0\0\x01\0\0\0\x09\0\0"),
        (frontend.SASLInitialResponse, b"X\0\xff\xff\xff\xfe"),
        (frontend.SASLInitialResponse, b"X\0\0\0\0\x05four"),
        (frontend.PasswordMessage, b"secret"),
        (frontend.Sync, b"\0"),
    ],
)
def test_malformed_body_is_refused_without_quoting_it(message, body):
    with pytest.raises(MessageError) as caught:
        message.decode(body)
    for secret in ("SELECT", "secret", "four"):
        assert secret not in str(caught.value)


def test_bind_holds_at_most_65535_parameters():
    message = frontend.Bind(b"", b"", (1,), [b"x"] * 65_535, (0,))
    assert frontend.Bind.decode(message.body()) == message
    with pytest.raises(EncodeError):
        frontend.Bind(b"", b"", (), [None] * 65_536).body()


def test_parse_of_65535_parameter_types_is_read():
    message = frontend.Parse(b"", b"", tuple(range(65_535)))
    assert frontend.Parse.decode(message.body()) == message


def test_format_codes_are_decoded_without_judging_their_number_or_value():
    """A wrong number of codes, or a code other than 0 and 1, is an error of the statement: the backend reports it."""
    message = frontend.Bind(b"", b"", (0, 1, 7), [b"x"], (-1, 2))
    assert frontend.Bind.decode(message.body()) == message


@pytest.mark.parametrize(
    "message",
    [
        frontend.Query(b"a\0b"),
        frontend.Parse(b"\0", b""),
        frontend.Bind(b"\0", b""),
        frontend.Bind(b"", b"\0"),
        frontend.Describe(256, b""),
        frontend.Close(0x50, b"\0"),
        frontend.Execute(b"", 2**31),
        frontend.FunctionCall(-1),
        frontend.PasswordMessage(b"\0"),
        frontend.SASLInitialResponse(b"\0", b""),
    ],
)
def test_fields_out_of_range_cannot_be_encoded(message):
    with pytest.raises(EncodeError):
        bytes(message)


@pytest.mark.parametrize(
    "response",
    [
        frontend.PasswordMessage(b"md5"),
        frontend.SASLInitialResponse(b"SCRAM-SHA-256", b"n,,"),
        frontend.SASLResponse(b"c=biws"),
        frontend.GSSResponse(b"\x60"),
    ],
)
def test_message_of_type_p_is_decoded_as_the_requested_response(response):
    assert frontend.decode(frontend.PASSWORD, response.body(), type(response)) == response


def test_message_of_type_p_without_a_request_is_a_sasl_response():
    assert frontend.decode(frontend.PASSWORD, b"secret\0") == frontend.SASLResponse(b"secret\0")


def test_empty_initial_response_differs_from_a_missing_one():
    assert frontend.SASLInitialResponse.decode(b"X\0\0\0\0\0").data == b""
    assert frontend.SASLInitialResponse.decode(b"X\0\xff\xff\xff\xff").data is None


def test_frames_encoded_once_have_the_manuals_bytes():
    assert frontend.SYNC_FRAME == b"S\0\0\0\x04"
    assert frontend.FLUSH_FRAME == b"H\0\0\0\x04"
    assert frontend.TERMINATE_FRAME == b"X\0\0\0\x04"


@pytest.mark.parametrize("formats", [(), (1,), (0, 1, 1)])
@pytest.mark.parametrize("parameters", [[], [None], [b"", b"\0" * 9, None, b"x"]])
@pytest.mark.parametrize("results", [(), (1,), (0, 1)])
def test_result_formats_of_a_bind_are_found_behind_its_parameters(formats, parameters, results):
    body = frontend.Bind(b"portal", b"s", formats, parameters, results).body()
    found = frontend.bind_result_formats(b"....." + body + b"...", 5, 5 + len(body))
    assert found == pack_numbers(INT16, results)
    for cut in range(len(body)):
        with pytest.raises(MessageError):
            frontend.bind_result_formats(b"....." + body[:cut] + b"\0" * 9, 5, 5 + cut)
