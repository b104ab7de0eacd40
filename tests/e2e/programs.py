"""Runs PostgreSQL's own programs in front of any server: psql, pg_dump, pgbench, pg_receivewal and others."""

import os
import subprocess

from proxy.demo.servers import postgres_bindir

TIMEOUT = 90.0


def environment(port, database, user="postgres", host="127.0.0.1"):
    """The libpq environment variables with which a program connects to that port and database."""
    words = {"PGHOST": host, "PGPORT": str(port), "PGUSER": user, "PGDATABASE": database, "PGSSLMODE": "disable"}
    return os.environ | words | {"PGGSSENCMODE": "disable", "PGCONNECT_TIMEOUT": "20", "LC_ALL": "C.UTF-8"}


def run(name, *arguments, port, database="postgres", bindir=None, text=None, status=0):
    """Run a program until it ends and return its output; fail unless its exit status is `status`."""
    done = subprocess.run(
        [(bindir or postgres_bindir()) / name, *map(str, arguments)],
        env=environment(port, database),
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == status, f"{name} ended with status {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def start(name, *arguments, port, database="postgres", bindir=None, **options):
    """Start a program in the background. The caller ends it."""
    command = [(bindir or postgres_bindir()) / name, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(port, database), **options)
