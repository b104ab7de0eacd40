"""Signals inside and outside of the block."""

import asyncio
import os
import signal

from proxy.process.signals import handle_signals


async def test_signals_call_their_functions_each_time_they_come():
    calls = []
    with handle_signals(stop=lambda: calls.append("stop"), reload=lambda: calls.append("reload")):
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.02)
    assert calls == ["reload", "stop", "stop", "stop"]


async def test_handlers_are_removed_at_the_end_of_the_block():
    with handle_signals(stop=lambda: None, reload=lambda: None):
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
