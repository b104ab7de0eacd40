"""What must hold for arbitrary bytes: one function for each decoder, which raises only if the decoder has a fault.

Used by the Hypothesis tests (test_codec.py) and by the atheris program (atheris_codec.py).
"""

from collections.abc import Callable
from functools import partial

from protocol import authentication, backend, copy_data, frontend, startup, tracing
from protocol.errors import ProtocolError, StartupError
from protocol.framing import FrameScanner, Handler
from protocol.message import Message

Target = Callable[[bytes], None]

RESPONSES: list[type[Message]] = [
    frontend.PasswordMessage,
    frontend.SASLInitialResponse,
    frontend.SASLResponse,
    frontend.GSSResponse,
]
MESSAGES: list[type[Message]] = list(
    dict.fromkeys(
        [
            *frontend.MESSAGES.values(),
            *RESPONSES,
            *backend.MESSAGES.values(),
            *authentication.REQUESTS.values(),
        ]
    )
)


def message(kind: type[Message], data: bytes) -> None:
    """A body that is accepted is encoded to exactly the same bytes: none was ignored, none added."""
    try:
        decoded = kind.decode(data)
    except ProtocolError:
        return
    assert decoded.body() == data
    assert tracing.render(decoded).isprintable()


def column_values(data: bytes) -> None:
    """A row in the middle of a buffer has the same values as alone."""
    try:
        alone = backend.DataRow.decode(data).values
    except ProtocolError:
        alone = None
    for before, after in ((b"", b""), (b"\xff" * 7, b"\0" * 9)):
        try:
            found = backend.column_values(before + data + after, len(before), len(before) + len(data))
        except ProtocolError:
            found = None
        assert found == alone


def startup_packet(data: bytes) -> None:
    """The end of a packet is found and stays the same; an accepted packet is encoded to exactly the same bytes."""
    try:
        end = startup.packet_end(data)
        assert all(startup.packet_end(data[:cut]) in (None, end) for cut in range(min(len(data), 64)))
        packet = startup.decode(data[:end])
    except StartupError:
        return
    assert bytes(packet) == data[:end]
    assert tracing.render(packet).isprintable()


def trace(data: bytes) -> None:
    """Arbitrary bytes have one printable line."""
    for line in (
        tracing.render_frontend(data[0] if data else 0, data[1:]),
        tracing.render_backend(data[0] if data else 0, data[1:]),
        tracing.render_startup(data),
    ):
        assert line.isprintable()


def scan(limits: list[int], data: bytes) -> None:
    """A stream has the same messages however it is cut. Its first bytes say where to cut and give the capacity."""
    if len(data) < 4:
        return
    first, second, capacity, switch = data[:4]
    stream = data[4:]
    whole = _outcome(limits, [stream], capacity, switch)
    cuts = sorted((first % (len(stream) + 1), second % (len(stream) + 1)))
    assert (
        _outcome(limits, [stream[: cuts[0]], stream[cuts[0] : cuts[1]], stream[cuts[1] :]], capacity, switch) == whole
    )
    assert _outcome(limits, [stream[pos : pos + 1] for pos in range(len(stream))], capacity, switch) == whole


def _outcome(limits: list[int], chunks: list[bytes], capacity: int, switch: int) -> tuple[list[object], object]:
    """The messages found, and the error, or else whether the stream ended with a complete message.

    A message of type ``switch`` removes all other handlers, or adds them again.
    """
    found: list[object] = []
    handlers: list[Handler | None] = [None] * 256

    def record(kind: int, buffer: bytes, start: int, end: int) -> None:
        assert type(buffer) is bytes
        found.append((kind, buffer[start:end]))

    recorders: list[Handler | None] = [partial(record, kind) for kind in range(256)]

    def toggle(buffer: bytes, start: int, end: int) -> None:
        others = recorders if handlers[switch - 1] is None else [None] * 256
        handlers[:] = others
        handlers[switch] = toggle

    handlers[switch] = toggle
    scanner = FrameScanner(handlers, limits, capacity=capacity, oversize=lambda *oversized: found.append(oversized))
    try:
        for chunk in chunks:
            scanner.feed(chunk)
    except ProtocolError as error:
        return found, str(error)
    return found, scanner.aligned


TARGETS: dict[str, Target] = {
    **{kind.__name__: partial(message, kind) for kind in MESSAGES},
    "column_values": column_values,
    "startup_packet": startup_packet,
    "tracing": trace,
    "scan_frontend": partial(scan, frontend.LIMITS),
    "scan_backend": partial(scan, backend.LIMITS),
}


def seeds(target: str) -> list[bytes]:
    """Valid inputs to begin with: the samples of tests/protocol which the target can read."""
    # Imported here: atheris_codec.py instruments everything imported at the top of this file.
    from tests.protocol import samples

    every = samples.FRONTEND + samples.BACKEND
    if target == "startup_packet":
        return [wire for _, wire in samples.STARTUP]
    if target == "tracing":
        return [wire[:1] + wire[5:] for _, wire in every]
    if target.startswith("scan_"):
        side = samples.FRONTEND if target == "scan_frontend" else samples.BACKEND
        stream = b"".join(wire for _, wire in side)
        head = bytes((9, 77, 20, copy_data.COPY_DONE))
        return [head + stream, *(head + wire for _, wire in side)]
    name = "DataRow" if target == "column_values" else target
    return [wire[5:] for sample, wire in every if type(sample).__name__ == name]
