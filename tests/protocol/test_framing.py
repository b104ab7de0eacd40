"""The scanner finds the same messages however the stream is cut, holds few bytes, and refuses invalid headers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import backend, codes, copy_data, frontend
from protocol.errors import FramingError, MessageError, ProtocolError
from protocol.framing import FrameScanner, Handler
from protocol.message import no_limits
from tests.protocol import strategies

WANTED = (backend.DATA_ROW, backend.COMMAND_COMPLETE, backend.PARSE_COMPLETE, backend.COPY_DATA)


class Recorder:
    """A scanner and the messages it reported, in order."""

    def __init__(self, wanted=WANTED, limits=backend.LIMITS, oversize=None, **settings):
        self.found = []
        self.handlers: list[Handler | None] = [None] * 256
        for kind in wanted:
            self.want(kind)
        self.scanner = FrameScanner(self.handlers, limits, oversize=oversize or self.oversize, **settings)

    def want(self, kind):
        def handler(buffer, start, end):
            assert type(buffer) is bytes
            assert 0 <= start <= end <= len(buffer)
            self.found.append((kind, buffer[start:end]))

        self.handlers[kind] = handler

    def oversize(self, kind, length, beginning):
        assert type(beginning) is bytes
        self.found.append(("oversize", kind, length, beginning))

    def feed(self, *chunks):
        for chunk in chunks:
            self.scanner.feed(chunk)
        return self.found


def frame(kind, body=b""):
    return bytes((kind,)) + (len(body) + 4).to_bytes(4, "big") + body


ROW = frame(backend.DATA_ROW, b"\0\x01\0\0\0\x0242")
STREAM = b"".join(
    [
        frame(backend.PARSE_COMPLETE),
        frame(backend.NO_DATA),
        ROW,
        frame(backend.NOTICE_RESPONSE, b"x" * 30),
        frame(backend.COPY_DATA),
        frame(backend.COPY_DATA, b"y" * 40),
        frame(backend.COMMAND_COMPLETE, b"SELECT 1\0"),
        backend.READY_IDLE_FRAME,
    ]
)
FOUND = [
    (backend.PARSE_COMPLETE, b""),
    (backend.DATA_ROW, ROW[5:]),
    (backend.COPY_DATA, b""),
    (backend.COPY_DATA, b"y" * 40),
    (backend.COMMAND_COMPLETE, b"SELECT 1\0"),
]


def test_stream_in_one_chunk_gives_every_wanted_message():
    recorder = Recorder()
    assert recorder.feed(STREAM) == FOUND
    assert recorder.scanner.aligned


def test_stream_cut_into_two_gives_the_same_messages():
    ends = set()
    for cut in range(len(STREAM) + 1):
        recorder = Recorder()
        recorder.feed(STREAM[:cut])
        if recorder.scanner.aligned:
            ends.add(cut)
        assert recorder.feed(STREAM[cut:]) == FOUND, cut
        assert recorder.scanner.aligned
    assert ends == {0, 5, 10, 23, 58, 63, 108, 122, 128}


def test_message_rest_is_what_the_current_message_still_needs():
    """For any position and any number of following bytes; the call does not change the scanner's state."""
    ends = [0, 5, 10, 23, 58, 63, 108, 122, 128]
    for cut in range(len(STREAM)):
        recorder = Recorder()
        recorder.feed(STREAM[:cut])
        end = next(end for end in ends if end >= cut)
        for size in range(len(STREAM) - cut + 1):
            there = STREAM[cut : cut + size]
            assert recorder.scanner.message_rest(there) == min(end - cut, size)
        assert recorder.feed(STREAM[cut:]) == FOUND


def test_message_rest_is_all_bytes_when_the_length_is_invalid_or_unknown():
    recorder = Recorder()
    recorder.feed(b"Z")
    assert recorder.scanner.message_rest(b"\0\0\0\3I more") == 10
    assert recorder.scanner.message_rest(b"") == 0


def test_stream_cut_into_three_gives_the_same_messages():
    stream = STREAM[:70]
    whole = Recorder().feed(stream)
    for first in range(len(stream)):
        for second in range(first, len(stream)):
            assert Recorder().feed(stream[:first], stream[first:second], stream[second:]) == whole, (first, second)


@pytest.mark.parametrize("size", range(1, 12))
def test_stream_in_equal_pieces_gives_the_same_messages(size):
    recorder = Recorder()
    assert recorder.feed(*(STREAM[pos : pos + size] for pos in range(0, len(STREAM), size))) == FOUND
    assert recorder.scanner.aligned


def test_empty_chunks_between_bytes_change_nothing():
    recorder = Recorder()
    assert recorder.feed(b"", *(piece for byte in STREAM for piece in (bytes((byte,)), b""))) == FOUND


def check_cuts(recorder, messages, limits, cuts):
    stream = b"".join(map(bytes, messages))
    expected = [(m.TYPE, m.body()) for m in messages]
    places = sorted(cut % (len(stream) + 1) for cut in cuts)
    bounds = [0, *places, len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    assert recorder.feed(*chunks) == expected
    assert recorder.scanner.aligned


cuts = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.lists(strategies.backend_messages, max_size=8), cuts)
def test_backend_messages_are_found_wherever_the_stream_is_cut(messages, places):
    check_cuts(Recorder(range(256)), messages, backend.LIMITS, places)


@given(st.lists(strategies.frontend_messages, max_size=8), cuts)
def test_frontend_messages_are_found_wherever_the_stream_is_cut(messages, places):
    check_cuts(Recorder(range(256), frontend.LIMITS), messages, frontend.LIMITS, places)


def test_handler_gets_the_chunk_itself_when_no_message_is_cut():
    seen = []
    handlers: list[Handler | None] = [None] * 256
    handlers[backend.DATA_ROW] = lambda buffer, start, end: seen.append((buffer, start, end))
    chunk = ROW + ROW
    FrameScanner(handlers, backend.LIMITS, oversize=lambda *message: seen.append(message)).feed(chunk)
    assert [(start, end) for _, start, end in seen] == [(5, 13), (18, 26)]
    assert all(buffer is chunk for buffer, _, _ in seen)


class TestHandlersChange:
    """The list of handlers is read again for every message."""

    def test_handler_added_by_a_handler_gets_the_next_message_of_the_chunk(self):
        recorder = Recorder([backend.PARSE_COMPLETE])

        def start_rows(buffer, start, end):
            recorder.want(backend.DATA_ROW)

        recorder.handlers[backend.PARSE_COMPLETE] = start_rows
        assert recorder.feed(ROW + frame(backend.PARSE_COMPLETE) + ROW) == [(backend.DATA_ROW, ROW[5:])]

    def test_handler_removed_by_a_handler_gets_no_further_message(self):
        recorder = Recorder([backend.DATA_ROW])

        def stop(buffer, start, end):
            recorder.handlers[backend.DATA_ROW] = None

        recorder.handlers[backend.COMMAND_COMPLETE] = stop
        assert len(recorder.feed(ROW + frame(backend.COMMAND_COMPLETE, b"\0") + ROW)) == 1

    @pytest.mark.parametrize("cut", range(1, 5))
    def test_handler_added_before_the_header_is_complete_gets_the_message(self, cut):
        recorder = Recorder([])
        recorder.feed(ROW[:cut])
        recorder.want(backend.DATA_ROW)
        assert recorder.feed(ROW[cut:]) == [(backend.DATA_ROW, ROW[5:])]

    @pytest.mark.parametrize("cut", range(5, len(ROW)))
    def test_handler_added_after_the_header_gets_only_later_messages(self, cut):
        recorder = Recorder([])
        recorder.feed(ROW[:cut])
        recorder.want(backend.DATA_ROW)
        assert recorder.feed(ROW[cut:], ROW) == [(backend.DATA_ROW, ROW[5:])]

    @pytest.mark.parametrize("cut", range(1, len(ROW)))
    def test_handler_removed_before_the_body_is_complete_is_not_called(self, cut):
        recorder = Recorder()
        recorder.feed(ROW[:cut])
        recorder.handlers[backend.DATA_ROW] = None
        assert recorder.feed(ROW[cut:], frame(backend.PARSE_COMPLETE)) == [(backend.PARSE_COMPLETE, b"")]


class TestCapacity:
    """A message with a handler that is longer than capacity is reported once, with its first bytes."""

    STREAM = frame(backend.COPY_DATA, b"0123456789") + frame(backend.COPY_DATA, b"01234567") + ROW
    EXPECTED = (("oversize", backend.COPY_DATA, 10, b"01234567"), (backend.COPY_DATA, b"01234567"), (68, ROW[5:]))

    def test_stream_cut_into_three_gives_the_same_messages(self):
        for first in range(len(self.STREAM) + 1):
            for second in range(first, len(self.STREAM) + 1):
                recorder = Recorder(capacity=8)
                recorder.feed(self.STREAM[:first], self.STREAM[first:second], self.STREAM[second:])
                assert recorder.found == list(self.EXPECTED), (first, second)
                assert recorder.scanner.aligned

    @pytest.mark.parametrize("size", range(1, 9))
    def test_stream_in_equal_pieces_gives_the_same_messages(self, size):
        recorder = Recorder(capacity=8)
        recorder.feed(*(self.STREAM[pos : pos + size] for pos in range(0, len(self.STREAM), size)))
        assert recorder.found == list(self.EXPECTED)

    def test_capacity_of_zero_reports_every_body_as_oversize(self):
        stream = frame(backend.COPY_DATA, b"01") + frame(backend.COPY_DATA)
        for cut in range(len(stream) + 1):
            recorder = Recorder(capacity=0)
            recorder.feed(stream[:cut], stream[cut:])
            assert recorder.found == [("oversize", backend.COPY_DATA, 2, b""), (backend.COPY_DATA, b"")], cut

    def test_oversize_is_reported_before_the_message_ends(self):
        recorder = Recorder(capacity=8)
        head = b"d\x7f\xff\xff\xff"
        assert recorder.feed(head, b"1234567") == []
        assert recorder.feed(b"8") == [("oversize", backend.COPY_DATA, 2**31 - 5, b"12345678")]
        recorder.feed(b"9" * 1000)
        assert len(recorder.found) == 1
        assert not recorder.scanner.aligned

    def test_unwanted_message_beyond_capacity_is_not_reported(self):
        recorder = Recorder(capacity=8)
        assert recorder.feed(frame(backend.NOTICE_RESPONSE, b"x" * 100), frame(backend.PARSE_COMPLETE)) == [
            (backend.PARSE_COMPLETE, b"")
        ]

    def test_no_more_than_capacity_is_held_of_a_two_gigabyte_message(self):
        """The message comes in small chunks, once with a handler and once without."""
        for wanted in ([], [backend.COPY_DATA]):
            recorder = Recorder(wanted, capacity=1000)
            recorder.feed(b"d\x7f\xff\xff\xff")
            for _ in range(2000):
                recorder.feed(b"x" * 777)
            assert recorder.scanner._partial is None
            assert recorder.scanner._head == b""


class TestRuns:
    """Runs of messages of one type without a handler are skipped together; a message between two of them is found."""

    @staticmethod
    def feed(stream, size):
        seen = []
        handlers: list[Handler | None] = [None] * 256
        handlers[backend.NOTICE_RESPONSE] = lambda buffer, start, end: seen.append(buffer[start:end])
        scanner = FrameScanner(handlers, backend.LIMITS, oversize=lambda kind, length, prefix: None)
        for pos in range(0, len(stream), size):
            scanner.feed(stream[pos : pos + size])
        return seen, scanner.aligned

    @pytest.mark.parametrize("length", [0, 1, 4, 40])
    @pytest.mark.parametrize("size", [1 << 20, 997])
    def test_wanted_message_anywhere_within_a_run_is_found(self, length, size):
        row, notice = frame(backend.DATA_ROW, b"D" * length), frame(backend.NOTICE_RESPONSE, b"x" * length)
        for place in (0, 1, 7, 8, 9, 10, 39, 40, 41, 42, 168, 169, 170, 300, 399, 400):
            stream = row * place + notice + row * (400 - place)
            assert self.feed(stream, size) == ([b"x" * length], True), place
            assert not self.feed(stream[:-1], size)[1]

    @pytest.mark.parametrize("place", [0, 5, 50, 200, 399])
    def test_row_of_another_length_within_a_run_is_stepped_over(self, place):
        rows = [frame(backend.DATA_ROW, b"D" * 9)] * 400
        rows[place] = frame(backend.DATA_ROW, b"D" * 8)
        assert self.feed(b"".join([*rows, frame(backend.NOTICE_RESPONSE, b"x")]), 1 << 20) == ([b"x"], True)

    @pytest.mark.parametrize("bad", [b"D\0\0\0\3", b"D\xff\xff\xff\xff", b"\xff\0\0\0\4"])
    @pytest.mark.parametrize("place", [0, 5, 50, 200, 399])
    def test_invalid_header_within_a_run_is_refused(self, bad, place):
        row = frame(backend.DATA_ROW, b"D" * 9)
        with pytest.raises(FramingError):
            self.feed(row * place + bad + row * (400 - place), 1 << 20)

    def test_body_that_contains_headers_is_not_read_as_messages(self):
        body = frame(backend.NOTICE_RESPONSE, b"x") * 3
        assert self.feed(frame(backend.DATA_ROW, body) * 500, 1 << 20) == ([], True)


def test_message_fed_byte_by_byte_takes_linear_time():
    """262,144 bytes byte by byte: a copy of everything held for each would be 34 GB."""
    body = bytes(262_144)
    recorder = Recorder()
    feed = recorder.scanner.feed
    for byte in frame(backend.COPY_DATA, body):
        feed(bytes((byte,)))
    assert recorder.found == [(backend.COPY_DATA, body)]


class TestRefusal:
    """An invalid header ends the scanner, however it was cut."""

    BAD = (
        b"D\0\0\0\x03xx",
        b"D\0\0\0\0",
        b"D\xff\xff\xff\xff",
        b"D\x80\0\0\0",
        b"Z\0\0\0\x06II",
        b"1\0\0\0\x05\0",
        b"\0\0\0\0\x04",
        b"Q\0\0\0\x05\0",
        b"K\0\0\x01\x09",
        b"HTTP/1.1",
    )

    @pytest.mark.parametrize("bad", BAD)
    def test_invalid_backend_header_is_refused_however_it_is_cut(self, bad):
        for cut in range(len(bad)):
            recorder = Recorder()
            recorder.feed(ROW)
            with pytest.raises(FramingError):
                recorder.feed(bad[:cut], bad[cut:])
            assert recorder.found == [(backend.DATA_ROW, ROW[5:])]
            assert not recorder.scanner.aligned

    @pytest.mark.parametrize("wanted", [[], WANTED], ids=["skipped", "wanted"])
    def test_feed_raises_after_a_refusal(self, wanted):
        recorder = Recorder(wanted)
        with pytest.raises(FramingError):
            recorder.feed(b"\x01\0\0\0\x04" + ROW)
        with pytest.raises(FramingError, match="fed again"):
            recorder.feed(ROW)
        assert recorder.found == []

    @pytest.mark.parametrize(
        ("kind", "limit"),
        [
            (frontend.SYNC, 10_000),
            (frontend.CLOSE, 10_000),
            (frontend.QUERY, 0x3FFF_FFFE),
            (frontend.BIND, 0x3FFF_FFFE),
            (frontend.PASSWORD, 65_535),
            (frontend.COPY_FAIL, 10_000),
        ],
    )
    def test_length_above_postgresqls_limit_is_refused(self, kind, limit):
        for cut in (3, 5):
            for length, accepted in ((limit, True), (limit + 1, False)):
                recorder = Recorder([], frontend.LIMITS)
                header = bytes((kind,)) + length.to_bytes(4, "big")
                if accepted:
                    recorder.feed(header[:cut], header[cut:])
                else:
                    with pytest.raises(FramingError, match=f"allowed are 4 to {limit}"):
                        recorder.feed(header[:cut], header[cut:])

    def test_error_text_quotes_no_content(self):
        with pytest.raises(FramingError) as caught:
            Recorder().feed(b"D\0\0\0\x03secret")
        assert str(caught.value) == "message of type 'D' with length 3: allowed are 4 to 2147483647"

    def test_callers_limits_decide_which_length_is_refused(self):
        limits = no_limits()
        limits[backend.DATA_ROW] = 12
        assert len(Recorder(limits=limits).feed(ROW)) == 1
        limits[backend.DATA_ROW] = 11
        with pytest.raises(FramingError):
            Recorder(limits=limits).feed(ROW)


class TestHandlersRaise:
    """An exception of a handler passes through and ends the scanner: the handler may have acted on half a message."""

    @pytest.mark.parametrize("cut", range(len(ROW)))
    def test_error_of_a_handler_passes_through_and_ends_the_scanner(self, cut):
        recorder = Recorder([])

        def decode(buffer, start, end):
            raise MessageError("no")

        recorder.handlers[backend.DATA_ROW] = decode
        with pytest.raises(MessageError):
            recorder.feed(ROW[:cut], ROW[cut:])
        with pytest.raises(FramingError):
            recorder.feed(b"")

    def test_feed_from_within_a_handler_is_refused(self):
        recorder = Recorder([])
        recorder.handlers[backend.DATA_ROW] = lambda buffer, start, end: recorder.scanner.feed(b"")
        with pytest.raises(FramingError):
            recorder.feed(ROW)

    def test_error_of_the_oversize_handler_passes_through(self):
        def refuse(kind, length, beginning):
            raise MessageError("too long")

        for cut in (0, 6):
            recorder = Recorder(capacity=4, oversize=refuse)
            recorder.feed(ROW[:cut])
            with pytest.raises(MessageError):
                recorder.feed(ROW[cut:])
            assert recorder.found == []


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 30))
def test_arbitrary_bytes_give_the_same_result_however_they_are_cut(chunks, capacity):
    """Only ProtocolError is raised, and the messages before it are those found in one chunk."""

    def outcome(pieces):
        recorder = Recorder(range(256), capacity=capacity)
        try:
            recorder.feed(*pieces)
        except ProtocolError as error:
            return recorder.found, str(error)
        return recorder.found, recorder.scanner.aligned

    assert outcome(chunks) == outcome([b"".join(chunks)])


def test_longest_legal_bodies_are_within_the_limits():
    """The longest legal body of a message with a count has exactly the limit."""
    most = 65_535
    for message in (
        backend.ParameterDescription((0,) * most),
        backend.CopyInResponse(codes.TEXT, (0,) * most),
        backend.BackendKeyData(1, b"k" * codes.MAXIMUM_KEY),
    ):
        assert len(bytes(message)) - 1 == backend.LIMITS[message.TYPE]


def test_limits_allow_only_the_types_of_their_direction():
    assert {kind for kind in range(256) if frontend.LIMITS[kind]} == {*frontend.MESSAGES, frontend.PASSWORD}
    assert {kind for kind in range(256) if backend.LIMITS[kind]} == {*backend.MESSAGES, backend.AUTHENTICATION}
    assert frontend.LIMITS[copy_data.COPY_FAIL]
    assert not backend.LIMITS[copy_data.COPY_FAIL]
