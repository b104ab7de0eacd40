"""The observer of one session, and what is done when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.net.startup import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.startup import StartupMessage
    from proxy.net.relay.observer import Observer
    from proxy.net.startup import Startup


class Observation:
    """Holds the observer, once there is one, and catches what it raises outside of looking at chunks.

    Args:
        observe: makes the observer; see ``relay.RelayHost``.
        on_internal_error: see ``cache.counts.ErrorReport``.
    """

    __slots__ = ("_observe", "_on_internal_error", "observer")

    def __init__(
        self,
        observe: Callable[[str, str, dict[str, str], dict[str, str]], Observer | None],
        on_internal_error: Callable[[str, BaseException], None],
    ) -> None:
        self._observe = observe
        self._on_internal_error = on_internal_error
        self.observer: Observer | None = None
        """None for a session that is only relayed."""

    def begin(self, message: StartupMessage | None, startup: Startup) -> bool:
        """Make the observer of a session whose startup is over, unless it is for replication.

        False: that failed, and what the session writes would go unseen.
        """
        if message is None or message.replication:
            return True
        sent = {text(name): text(value) for name, value in message.parameters}
        try:
            self.observer = self._observe(text(message.database), text(message.user), startup.parameters, sent)
            if self.observer is not None and not startup.followed:
                # What it writes can still change configured tables: it is blind, not unobserved.
                self.observer.desynchronize("its startup could not be followed")
        except Exception as error:  # noqa: BLE001 - a fault of ours; the caller ends the session
            self.report(error)
            return False
        return True

    def report(self, error: BaseException) -> None:
        """Count a fault of ours and log its traceback."""
        self._on_internal_error("relay", error)

    def desynchronize(self, reason: str) -> None:
        """Have the observer remove from Redis what the session may have written, now and when it ends."""
        assert self.observer is not None
        try:
            self.observer.desynchronize(reason)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, relaying goes on
            self.report(error)

    def close(self, *, backend_ended: bool) -> None:
        """Both connections are closed. ``backend_ended``: the server's stream was seen to its end."""
        if self.observer is None:
            return
        try:
            self.observer.closed(backend_ended=backend_ended)
        except Exception as error:  # noqa: BLE001 - observation may fail in any way, the session still ends
            self.report(error)
            self.desynchronize("internal error when the session ended")
