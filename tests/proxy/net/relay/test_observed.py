"""Chunks that are shown to an observer: before or after they are forwarded, within a limit, and when it fails."""

import asyncio
import time

from protocol import frontend
from tests.proxy.conftest import Recorder
from tests.proxy.net.bare import open_session


def test_chunks_wait_for_what_the_observer_awaits_and_keep_their_order(serve, database, recorder):
    class Holding(Recorder):
        before_commit = True
        before_forwarding = None

        def frontend(self, data):
            super().frontend(data)
            self.before_forwarding = asyncio.sleep(0.3) if b"held" in data else None

    observer = Holding()
    server = serve(lambda *_facts: observer)
    with open_session(server, database) as connection:
        began = time.monotonic()
        connection.sendall(bytes(frontend.Query(b"SELECT 'held'")))
        time.sleep(0.05)
        connection.sendall(bytes(frontend.Query(b"SELECT 'next'")))
        data = b""
        while data.count(b"Z\0\0\0\5I") < 2:
            data += connection.recv(65536)
        assert time.monotonic() - began > 0.3
        assert data.index(b"held") < data.index(b"next")
