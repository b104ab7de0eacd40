"""Authentication*: the backend's messages of type ``R``. An Int32 at the start of the body says which one it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from protocol.errors import EncodeError, MessageError
from protocol.fields import INT32, Reader, pack, pack_cstring
from protocol.message import Message

AUTHENTICATION: Final = ord("R")

_CHANNEL_BINDING_SUFFIX: Final = b"-PLUS"


class _Authentication(Message):
    """One authentication request. Its body begins with ``CODE``; a body with another code is refused."""

    __slots__ = ()

    TYPE = AUTHENTICATION
    CODE: ClassVar[int]

    @classmethod
    def _reader(cls, body: bytes) -> Reader:
        reader = Reader(body)
        code = reader.int32()
        if code != cls.CODE:
            raise MessageError(f"authentication code {code}, not {cls.CODE}")
        return reader


class _PlainAuthentication(_Authentication):
    """A request whose body is its code only."""

    __slots__ = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        cls._reader(body).end()
        return cls()

    def body(self) -> bytes:
        return pack(INT32, self.CODE)


@dataclass(slots=True)
class _DataAuthentication(_Authentication):
    """A request whose code is followed by data of the mechanism, up to the end of the message."""

    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(cls._reader(body).rest())

    def body(self) -> bytes:
        return pack(INT32, self.CODE) + self.data


@dataclass(slots=True)
class AuthenticationOk(_PlainAuthentication):
    """Authentication succeeded."""

    CODE = 0


@dataclass(slots=True)
class AuthenticationKerberosV5(_PlainAuthentication):
    """Kerberos V5 is required (no longer supported by PostgreSQL)."""

    CODE = 2


@dataclass(slots=True)
class AuthenticationCleartextPassword(_PlainAuthentication):
    """The password is required in clear text."""

    CODE = 3


@dataclass(slots=True)
class AuthenticationMD5Password(_Authentication):
    """The password is required as an MD5 hash salted with ``salt``."""

    CODE = 5
    salt: bytes
    """4 bytes."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = cls._reader(body)
        salt = reader.take(4)
        reader.end()
        return cls(salt)

    def body(self) -> bytes:
        if len(self.salt) != 4:
            raise EncodeError(f"a salt has 4 bytes, not {len(self.salt)}")
        return pack(INT32, self.CODE) + self.salt


@dataclass(slots=True)
class AuthenticationSCMCredential(_PlainAuthentication):
    """The credentials of the Unix socket's peer are required from the operating system (before PostgreSQL 9.1)."""

    CODE = 6


@dataclass(slots=True)
class AuthenticationGSS(_PlainAuthentication):
    """GSSAPI is required."""

    CODE = 7


@dataclass(slots=True)
class AuthenticationGSSContinue(_DataAuthentication):
    """The next data of a GSSAPI or SSPI exchange."""

    CODE = 8


@dataclass(slots=True)
class AuthenticationSSPI(_PlainAuthentication):
    """SSPI is required."""

    CODE = 9


@dataclass(slots=True)
class AuthenticationSASL(_Authentication):
    """SASL is required, with one of ``mechanisms`` (in the backend's order of preference)."""

    CODE = 10
    mechanisms: tuple[bytes, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        reader = cls._reader(body)
        mechanisms = []
        while mechanism := reader.cstring():
            mechanisms.append(mechanism)
        reader.end()
        return cls(tuple(mechanisms))

    def body(self) -> bytes:
        if b"" in self.mechanisms:
            raise EncodeError("an empty mechanism name would end the list")
        return pack(INT32, self.CODE) + b"".join(map(pack_cstring, self.mechanisms)) + b"\0"

    def without_channel_binding(self) -> AuthenticationSASL:
        """The same request without the mechanisms that bind to a TLS channel."""
        return AuthenticationSASL(tuple(m for m in self.mechanisms if not m.endswith(_CHANNEL_BINDING_SUFFIX)))


@dataclass(slots=True)
class AuthenticationSASLContinue(_DataAuthentication):
    """A SASL challenge."""

    CODE = 11


@dataclass(slots=True)
class AuthenticationSASLFinal(_DataAuthentication):
    """SASL has completed; ``data`` is the mechanism's "additional data"."""

    CODE = 12


REQUESTS: Final[dict[int, type[_Authentication]]] = {
    request.CODE: request
    for request in (
        AuthenticationOk,
        AuthenticationKerberosV5,
        AuthenticationCleartextPassword,
        AuthenticationMD5Password,
        AuthenticationSCMCredential,
        AuthenticationGSS,
        AuthenticationGSSContinue,
        AuthenticationSSPI,
        AuthenticationSASL,
        AuthenticationSASLContinue,
        AuthenticationSASLFinal,
    )
}


def decode(body: bytes) -> Message:
    """The Authentication* message with this body. Raises ``MessageError``."""
    code = Reader(body).int32()
    request = REQUESTS.get(code)
    if request is None:
        raise MessageError(f"no authentication request has the code {code}")
    return request.decode(body)
