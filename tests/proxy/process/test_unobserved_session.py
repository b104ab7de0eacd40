"""Sessions on databases without rules: all that is known of them is how many are open."""

from proxy.process.unobserved_session import UnobservedSession


def test_open_sessions_are_counted_by_database():
    open_sessions: dict[str, int] = {}
    one, two = UnobservedSession(open_sessions, "app"), UnobservedSession(open_sessions, "app")
    other = UnobservedSession(open_sessions, "other")
    assert open_sessions == {"app": 2, "other": 1}
    one.closed(backend_ended=True)
    assert open_sessions == {"app": 1, "other": 1}
    other.closed(backend_ended=False)
    two.closed(backend_ended=True)
    assert open_sessions == {}


def test_traffic_is_not_followed_and_never_makes_the_client_wait():
    session = UnobservedSession({}, "app")
    session.frontend(b"Q")
    session.backend(b"Z")
    session.desynchronize("bytes were not shown")
    session.wants_catalog()
    assert session.blinded
    assert not session.over_limit
    assert not session.before_commit
    assert session.before_forwarding is None
    assert session.is_bulk(b"Q")
    assert session.message_rest(b"Q12") == 3
