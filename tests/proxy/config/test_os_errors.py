"""Reasons of failed system calls, as they stand in messages for people."""

import errno
import os
import socket

import pytest

from proxy.config.os_errors import reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), "connection refused"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "absent"), "no such file or directory"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name or service not known"),
        (socket.gaierror("lookup failed"), "lookup failed"),
        (ConnectionResetError("the server does not support TLS"), "the server does not support TLS"),
        (OSError(), "OSError"),
    ],
    ids=repr,
)
def test_reason_is_the_systems_words_in_lower_case_or_our_own(error, reason):
    assert reason_of(error) == reason
