"""Line numbers of keys in TOML text."""

import tomllib

import pytest

from proxy.config.lines import Lines

TEXT = '''\
# a comment [not.a.table]
top = 1

[proxy]
listen = [
  "127.0.0.1:6432",  # port = 1
  "x]",
]
"quoted key" = 2
[proxy . tls]
cert = """
[log]
level = "not a key"
"""
key = \'\'\'
[[table]]\'\'\'
inline = { a = 1, b = [1,
  2] }
dotted.part = "\\"]"
[[table]]
name = "users"

[[table]]
  name = 'or"ders'
  [table.sub]
  x = 1
[[table]]
name="third"'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("proxy",), 4),
        (("proxy", "listen"), 5),
        (("proxy", "listen", 1), 5),
        (("proxy", "quoted key"), 9),
        (("proxy", "tls"), 10),
        (("proxy", "tls", "cert"), 11),
        (("proxy", "tls", "key"), 15),
        (("proxy", "tls", "inline", "b"), 17),
        (("proxy", "tls", "dotted", "part"), 19),
        (("table", 0), 20),
        (("table", 0, "name"), 21),
        (("table", 0, "missing"), 20),
        (("table", 1), 23),
        (("table", 1, "name"), 24),
        (("table", 1, "sub"), 25),
        (("table", 1, "sub", "x"), 26),
        (("table", 2, "name"), 28),
        (("log", "level"), None),
        ((), None),
    ],
)
def test_line_of_each_key_and_header_is_found(path, line):
    tomllib.loads(TEXT)
    assert Lines(TEXT).line_of(path) == line


def test_crlf_line_ends_are_counted_once():
    assert Lines("a = 1\r\nb = 2\r\n").line_of(("b",)) == 2


@pytest.mark.parametrize("text", ["", "=", "[", "[[", "[a", "a", "a.", '"', "'''", "a = '", "]\n]\n", "\\", "a = {\n"])
def test_text_that_is_no_toml_is_scanned_without_an_error(text):
    Lines(text)
