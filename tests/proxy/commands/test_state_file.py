"""The state file of ``rowtap warm``: what it keeps, when it is written, and files that are none."""

import pytest

from proxy.commands.state_file import StateFile, TableProgress
from proxy.commands.table_reader import ReadFailure, UsageError


def test_keys_that_are_not_utf8_are_read_back_as_they_were(tmp_path):
    state = StateFile(tmp_path / "state.json")
    place = (b"\xff\xfe", "ü\n\"'".encode(), b"")
    state.tables["a.b.c#d:{e}"] = TableProgress(("a", "b", "c"), place, 3, 2)
    state.save(at_once=True)
    assert StateFile.load(state.path).tables == state.tables


def test_save_writes_once_in_an_interval_unless_at_once(tmp_path):
    state = StateFile(tmp_path / "state.json")
    state.tables["t"] = TableProgress(rows=1)
    state.save()
    state.tables["t"].rows = 2
    state.save()
    assert StateFile.load(state.path).tables["t"].rows == 1
    state.save(at_once=True)
    assert StateFile.load(state.path).tables["t"].rows == 2
    StateFile(None).save(at_once=True)
    StateFile(None).remove()


ENTRY = '{"order": ["a"], "place": [%s], "rows": 1, "present": 1, "done": false}'


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"tables": []}', '{"tables": {"t": {}}}', '{"tables": {"t": %s}}' % (ENTRY % "1"), b"\xff"],
)
def test_file_that_is_no_state_file_is_refused(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match="is no state file"):
        StateFile.load(path)


def test_file_that_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(UsageError, match="is a directory"):
        StateFile.load(tmp_path)
    with pytest.raises(ReadFailure, match="cannot be written: no such file"):
        StateFile(tmp_path / "nowhere" / "state.json").save(at_once=True)
