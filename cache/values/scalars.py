"""Addresses, bit strings, identifiers and other small types in binary format, printed as PostgreSQL prints them."""

from __future__ import annotations

import re
import struct

_ADDRESS = struct.Struct("!BBBB")
_TID = struct.Struct("!IH")
_LSN = struct.Struct("!II")
_LENGTH = struct.Struct("!i")
_INET, _INET6 = 2, 3
"""PGSQL_AF_INET and PGSQL_AF_INET6: the same on every platform."""
_ESCAPED = re.compile(rb"\\(?:([0-3][0-7]{2})|(\\))")
_VALID_ESCAPES = re.compile(rb"(?:[^\\]|\\\\|\\[0-3][0-7]{2})*")


def bytea_from_text(value: bytes) -> bytes:
    r"""Either bytea_output as hex. A text that begins with ``\x`` is hex: in the other format every backslash stands
    before an octal number or another one."""
    if value.startswith(b"\\x"):
        return value
    if not _VALID_ESCAPES.fullmatch(value):
        raise ValueError("not a bytea")
    return bytea_text(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]) if match[1] else b"\\", value))


def bytea_text(value: bytes) -> bytes:
    """Hex, whatever the session's bytea_output."""
    return b"\\x" + value.hex().encode()


def char_from_text(value: bytes) -> bytes:
    r"""``"char"``: one ASCII character, nothing, or (from version 15 on) an octal escape of another byte."""
    if not value.isascii():
        raise ValueError("a byte that is no character")
    return value


def char_text(value: bytes) -> bytes:
    """One byte, of which 0 prints as nothing."""
    if len(value) != 1:
        raise ValueError("a char is one byte")
    byte = value[0]
    if byte >= 0x80:
        return b"\\%03o" % byte
    return value if byte else b""


def char_text_14(value: bytes) -> bytes:
    """The same before version 15, where a byte beyond ASCII printed as itself and need not be text."""
    return char_from_text(char_text(value)) if value < b"\x80" else char_from_text(value)


def uuid_text(value: bytes) -> bytes:
    """Sixteen bytes."""
    if len(value) != 16:
        raise ValueError("a uuid is 16 bytes")
    digits = value.hex().encode()
    return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def macaddr_text(value: bytes) -> bytes:
    """Six bytes."""
    if len(value) != 6:
        raise ValueError("a macaddr is 6 bytes")
    return value.hex(":").encode()


def macaddr8_text(value: bytes) -> bytes:
    """Eight bytes."""
    if len(value) != 8:
        raise ValueError("a macaddr8 is 8 bytes")
    return value.hex(":").encode()


def inet_text(value: bytes) -> bytes:
    """inet prints its netmask length when it is not the whole address, cidr always."""
    family, bits, is_cidr, size = _ADDRESS.unpack_from(value)
    address = value[4:]
    if len(address) != size or (family, size) not in ((_INET, 4), (_INET6, 16)) or bits > 8 * size:
        raise ValueError("not an address")
    text = _ipv4(address) if family == _INET else _ipv6(address)
    return b"%b/%d" % (text, bits) if is_cidr or bits != 8 * size else text


def _ipv4(address: bytes) -> bytes:
    return b"%d.%d.%d.%d" % tuple(address)


def _ipv6(address: bytes) -> bytes:
    """Lower-case words with the first longest run of two zero words or more left out."""
    words = struct.unpack("!8H", address)
    start, length = _longest_zeros(words)
    # PostgreSQL's rule for an address that carries one of version 4.
    if start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF)):
        return (b"::ffff:" if length == 5 else b"::") + _ipv4(address[12:])
    if length < 2:
        return b":".join([b"%x" % word for word in words])
    head, tail = words[:start], words[start + length :]
    return b":".join([b"%x" % word for word in head]) + b"::" + b":".join([b"%x" % word for word in tail])


def _longest_zeros(words: tuple[int, ...]) -> tuple[int, int]:
    """Start and length of the first longest run of zeros."""
    best = (-1, 0)
    start = 0
    for position, word in enumerate((*words, 1)):
        if word:
            if position - start > best[1]:
                best = (start, position - start)
            start = position + 1
    return best


def bit_text(value: bytes) -> bytes:
    """bit and varbit: a number of bits, then the bits with the last byte padded."""
    (count,) = _LENGTH.unpack_from(value)
    data = value[4:]
    if count < 0 or len(data) != (count + 7) // 8:
        raise ValueError("not a bit string")
    if not count:
        return b""
    return format(int.from_bytes(data), f"0{8 * len(data)}b")[:count].encode()


def tid_text(value: bytes) -> bytes:
    """Block and offset."""
    return b"(%d,%d)" % _TID.unpack(value)


def pg_lsn_text(value: bytes) -> bytes:
    """Up to version 18; later ones pad the second half with zeros."""
    return b"%X/%X" % _LSN.unpack(value)


def pg_snapshot_text(value: bytes) -> bytes:
    """``xmin:xmax:xip,xip``; also txid_snapshot."""
    (count,) = _LENGTH.unpack_from(value)
    low, high, *running = struct.unpack_from(f"!{count + 2}Q", value, 4)
    if len(value) != 20 + 8 * count:
        raise ValueError("not a snapshot")
    return b"%d:%d:%b" % (low, high, b",".join([b"%d" % transaction for transaction in running]))
