"""Numbers of the protocol other than type bytes and lengths: versions, request codes, format codes, type OIDs.

Type bytes are defined beside their messages, because the same byte means different messages in each direction:
``frontend.DESCRIBE`` and ``backend.DATA_ROW`` are both ``D``.
"""

from __future__ import annotations

from typing import Final

# Protocol versions: major in the upper 16 bits, minor in the lower.
PROTOCOL_3_0: Final = 3 << 16
PROTOCOL_3_2: Final = 3 << 16 | 2
"""PostgreSQL 18 and later; version 3.1 was never used."""

# Request codes: in a startup packet they are in the place of the version.
CANCEL_REQUEST: Final = 1234 << 16 | 5678
SSL_REQUEST: Final = 1234 << 16 | 5679
GSSENC_REQUEST: Final = 1234 << 16 | 5680

# Format codes of parameters, result columns and COPY data.
TEXT: Final = 0
BINARY: Final = 1

# Transaction status of ReadyForQuery.
IDLE: Final = ord("I")
IN_TRANSACTION: Final = ord("T")
FAILED_TRANSACTION: Final = ord("E")

# What Describe and Close name.
PREPARED_STATEMENT: Final = ord("S")
PORTAL: Final = ord("P")

# Length of the secret key of BackendKeyData and CancelRequest, in bytes.
MINIMUM_KEY: Final = 4
MAXIMUM_KEY: Final = 256

# Field codes of ErrorResponse and NoticeResponse that have a name here; a decoded report keeps all others too.
SEVERITY: Final = ord("S")
SEVERITY_UNLOCALIZED: Final = ord("V")
SQLSTATE: Final = ord("C")
MESSAGE: Final = ord("M")
DETAIL: Final = ord("D")
HINT: Final = ord("H")

# The type of a result column that does not say another: text, by its OID in pg_catalog.
TEXT_OID: Final = 25
