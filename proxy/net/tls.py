"""TLS on both legs: contexts made from the configuration, and what libpq's sslmode means.

Makes contexts and compares certificates; who speaks TLS when is ``connection``'s and ``backend_connection``'s affair.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from proxy.config.os_errors import reason_of

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.config.sections import PostgresSection, TlsSection

ALPN: Final = "postgresql"

# With TLS or without, in the order they are tried: what each sslmode means to libpq.
ATTEMPTS: Final = {
    "disable": (False,),
    "allow": (False, True),
    "prefer": (True, False),
    "require": (True,),
    "verify-ca": (True,),
    "verify-full": (True,),
}


class TlsError(Exception):
    """A certificate, key or authority cannot be used. One line that says which and what to do."""


def client_context(settings: TlsSection) -> ssl.SSLContext:
    """What clients are met with. Reads the files; raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context)
    # As PostgreSQL: no session tickets, which would outlive a change of certificate.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    _load_key(context, settings)
    if settings.ca is not None:
        _load_authorities(context, settings.ca, "proxy.tls.ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def backend_context(settings: PostgresSection) -> ssl.SSLContext | None:
    """What PostgreSQL is met with, or None where sslmode or a Unix socket rule TLS out. Raises TlsError."""
    if settings.sslmode == "disable" or settings.socket_path is not None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _common(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.sslrootcert is not None:
        # With a root certificate at hand libpq checks in every mode, so that "require" means verify-ca.
        if settings.sslrootcert == "system":
            context.load_default_certs()
        else:
            _load_authorities(context, settings.sslrootcert, "postgres.sslrootcert")
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = settings.sslmode == "verify-full"
    return context


def own_certificate(settings: TlsSection) -> bytes:
    """The DER form of the certificate that clients see: the file's first. Raises TlsError."""
    try:
        pem = settings.cert.read_text(encoding="ascii", errors="replace")
        begin = pem.index(ssl.PEM_HEADER)
        end = pem.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
        return ssl.PEM_cert_to_DER_cert(pem[begin:end])
    except (OSError, ValueError) as error:
        raise TlsError(f"proxy.tls.cert: {settings.cert} holds no certificate in PEM format ({error})") from None


def failure_of(error: ssl.SSLError) -> str:
    """A failed handshake in words: OpenSSL's reason, ``WRONG_VERSION_NUMBER`` and the like, if it gave one."""
    return f"TLS failed: {getattr(error, 'reason', None) or error}"


def _common(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])


def _load_key(context: ssl.SSLContext, settings: TlsSection) -> None:
    asked = False

    def passphrase() -> str:
        # Always given, for without it OpenSSL would ask on the terminal.
        nonlocal asked
        asked = True
        return "" if settings.passphrase is None else settings.passphrase.get_secret_value()

    _readable(settings.cert, "proxy.tls.cert")
    _readable(settings.key, "proxy.tls.key")
    try:
        context.load_cert_chain(settings.cert, settings.key, passphrase)
    except (ssl.SSLError, ValueError) as error:
        if asked and settings.passphrase is None:
            raise TlsError(f"proxy.tls.key: {settings.key} is encrypted; set proxy.tls.passphrase") from None
        if asked:
            raise TlsError(f"proxy.tls.passphrase: does not open {settings.key}") from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise TlsError(f"proxy.tls.key: {settings.key} is not the key of {settings.cert}") from None
        reason = getattr(error, "reason", None) or error
        raise TlsError(
            f"proxy.tls: {settings.cert} and {settings.key} are not usable in PEM format ({reason})"
        ) from None


def _load_authorities(context: ssl.SSLContext, path: Path, name: str) -> None:
    _readable(path, name)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, ValueError):
        raise TlsError(f"{name}: {path} holds no certificate in PEM format") from None


def _readable(path: Path, name: str) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise TlsError(f"{name}: {path} cannot be read: {reason_of(error)}") from None
