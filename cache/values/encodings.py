"""Text in a session's client_encoding, made UTF-8.

Every client encoding writes ASCII as ASCII. Beyond that only encodings are converted whose table in PostgreSQL and in
Python is the same and gives each byte sequence one meaning; all others are read as long as a value is ASCII.
"""

from __future__ import annotations

from functools import lru_cache

from cache.values.loading import Loader, ValueSettings, verbatim

CODECS = {
    **{f"LATIN{number}": f"iso8859-{part}" for number, part in
       zip(range(1, 11), (1, 2, 3, 4, 9, 10, 13, 14, 15, 16), strict=True)},
    **{f"ISO_8859_{part}": f"iso8859-{part}" for part in (5, 6, 7, 8)},
    **{f"WIN{page}": f"cp{page}" for page in (*range(1250, 1259), 866, 874)},
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "EUC_CN": "gb2312",
    "EUC_KR": "euc_kr",
    "GBK": "gbk",
}  # fmt: skip
"""Python's codec for each encoding whose tables were found to agree."""

_ASCII_ONLY = frozenset({"EUC_JP", "EUC_TW", "EUC_JIS_2004", "BIG5", "UHC", "GB18030", "JOHAB", "SQL_ASCII"})
_ASCII_MOSTLY = frozenset({"SJIS", "SHIFT_JIS_2004"})
r"""PostgreSQL converts the yen sign and the overline to these encodings' ``\`` and ``~``."""


def text_loader(settings: ValueSettings) -> Loader | str:
    """The loader of text values, or why none can be read."""
    return _loader(effective_encoding(settings))


def input_loader(settings: ValueSettings) -> Loader | str:
    """What text sent to the server will be once it is stored and printed again, as a loader.

    The server's own encoding must give a character back as it took it, which is certain of the converted ones only;
    and where a byte below 128 can be part of a character, a statement's text may not have been split where it should.
    """
    text = text_loader(settings)
    stable = settings.server_encoding == "UTF8" or settings.server_encoding in CODECS
    if isinstance(text, str) or text is _plain_ascii:
        return text
    return text if stable and effective_encoding(settings) != "GBK" else _ascii


def effective_encoding(settings: ValueSettings) -> str:
    """What text from the server is written in, as PostgreSQL spells it; empty when not known."""
    encoding = settings.client_encoding
    if encoding == "SQL_ASCII":
        # No conversion then: text leaves the server as it is stored.
        encoding = settings.server_encoding or encoding
    return "UTF8" if encoding == "UNICODE" else encoding


@lru_cache(maxsize=64)
def _loader(encoding: str) -> Loader | str:
    if encoding == "UTF8":
        return verbatim
    if encoding in CODECS:
        return _transcoder(CODECS[encoding])
    if encoding in _ASCII_ONLY:
        return _ascii
    if encoding in _ASCII_MOSTLY:
        return _plain_ascii
    return f"text in client_encoding {encoding} cannot be converted exactly" if encoding else "client_encoding unknown"


def _transcoder(codec: str) -> Loader:
    def transcoded(value: bytes) -> bytes | None:
        if value.isascii():
            return value
        try:
            return value.decode(codec).encode()
        except UnicodeError:
            return None

    return transcoded


def _ascii(value: bytes) -> bytes | None:
    return value if value.isascii() else None


def _plain_ascii(value: bytes) -> bytes | None:
    return value if value.isascii() and b"\\" not in value and b"~" not in value else None
