"""Rowtap with a mistake in the way to its observer: with this directory on PYTHONPATH, statements say what fails.

Python imports a module of this name when it starts. A session whose client sends `fault=NAME` fails from then on where
NAME says; `fault=backend` is looked for in the server's answers. With FAULT=answer in the environment the first answer
to a catalog query fails. Everything else is as ever.
"""

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from cache.capture.database import CatalogQuestion
from proxy.net.startup import Startup
from proxy.session.session import Session

MARK = re.compile(rb"fault=([a-z]+)")


class InjectedFault(Exception):  # noqa: N818 - what the log is searched for
    """A mistake that a test makes on purpose."""


def seen(session, data):
    """Remember what `data` says shall fail in this session; what fails now."""
    if match := MARK.search(data):
        session.fault = match[1].decode()
    return getattr(session, "fault", "")


async def fail_later():
    raise InjectedFault("wait")


def instead(kind, name):
    """Replaces the method by one that is given the original."""
    original = getattr(kind, name)

    def replace(function):
        def method(self, *arguments, **named):
            return function(original, self, *arguments, **named)

        setattr(kind, name, method)

    return replace


@instead(Session, "frontend")
def _(original, session, data):
    fault = seen(session, data)
    if fault == "frontend":
        raise InjectedFault(fault)
    original(session, data)
    if fault == "wait":
        if session.before_forwarding is not None:
            session.before_forwarding.close()
        session.before_forwarding = fail_later()


@instead(Session, "backend")
def _(original, session, data):
    if seen(session, data) == "backend":
        raise InjectedFault("backend")
    original(session, data)


@instead(Session, "wants_catalog")
def _(original, session):
    if getattr(session, "fault", "") == "catalog":
        raise InjectedFault("catalog")
    return original(session)


@instead(Session, "closed")
def _(original, session, **named):
    if getattr(session, "fault", "") == "closed":
        raise InjectedFault("closed")
    original(session, **named)


@instead(CatalogQuestion, "answer")
def _(original, question, payload):
    if os.environ.pop("FAULT", "") == "answer":
        raise InjectedFault("answer")
    original(question, payload)


@instead(Startup, "frontend")
def _(original, startup, data):
    if b"fault=startup" in data:
        raise InjectedFault("startup")
    original(startup, data)
