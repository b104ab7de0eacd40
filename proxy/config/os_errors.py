"""What a failed system call is called in a sentence."""

from __future__ import annotations

import os
import socket


def reason_of(error: OSError) -> str:
    """Why a system call or a name lookup failed, in lower case: ``connection refused``. An error that we raised
    ourselves, which has no number, in its own words."""
    if isinstance(error, socket.gaierror):
        return (error.strerror or str(error)).lower()
    if error.errno is None:
        return str(error) or type(error).__name__
    # Not strerror: asyncio puts addresses and whole sentences there.
    return os.strerror(error.errno).lower()
