"""The sections' own rules: what is allowed beside what, and what others see of them."""

import pytest
from pydantic import ValidationError

from proxy.config.sections import PostgresSection, TlsSection


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:pw@localhost/0", "redis://:***@localhost/0"),
        ("redis://user@localhost/0", "redis://user@localhost/0"),
        ("redis+sentinel://:pw@a:1,b:2/main/3", "redis+sentinel://:***@a:1,b:2/main/3"),
        ("redis+sentinel://a,b/main", "redis+sentinel://a,b/main"),
        ("unix://:p%40w@/run/redis.sock", "unix://:***@/run/redis.sock"),
        ("redis://u:a@b@h/0", "redis://u:***@h/0"),
    ],
)
def test_safe_url_hides_the_password(configured, url, safe):
    assert configured(f'[redis]\nurl = "{url}"').redis.safe_url == safe


@pytest.mark.parametrize(
    ("host", "path", "shown"),
    [
        ("localhost", None, "localhost:5432"),
        ("::1", None, "[::1]:5432"),
        ("/run/postgresql", "/run/postgresql/.s.PGSQL.5432", "/run/postgresql/.s.PGSQL.5432"),
        ("@abstract", "\0abstract/.s.PGSQL.5432", "@abstract/.s.PGSQL.5432"),
    ],
)
def test_host_that_is_a_directory_is_a_unix_socket(host, path, shown):
    section = PostgresSection(host=host)
    assert section.socket_path == path
    assert str(section) == shown


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_path_that_is_none_is_refused(path):
    with pytest.raises(ValidationError, match="must be a path"):
        TlsSection.model_validate({"cert": path, "key": "k"})
