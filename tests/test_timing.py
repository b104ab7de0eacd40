"""Who is run again: what is marked as depending on timing, with its reason, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUITE = """
import pytest

runs = {}

def again(name):
    runs[name] = runs.get(name, 0) + 1
    return runs[name]

@pytest.mark.timing("a busy machine")
def test_marked():
    assert again("marked") == 3

@pytest.mark.timing("a busy machine")
def test_marked_failing_thrice():
    assert again("thrice") == 4

@pytest.mark.timing("a busy machine")
def test_marked_stale():
    assert again("stale") == 2, "stale keys"

def test_unmarked():
    assert again("unmarked") == 2

@pytest.mark.timing("a busy machine")
class TestMarked:
    def test_method(self):
        assert again("method") == 2
"""


@pytest.fixture
def run(tmp_path):
    """`run(*sources)`: the outcome of each test of these files, and all that was printed."""

    def run_suite(*sources):
        for number, source in enumerate(sources):
            (tmp_path / f"test_{number}.py").write_text(source)
        options = [
            "-p",
            "tests.timing",
            "-p",
            "no:randomly",
            "-c",
            ROOT / "pyproject.toml",
            "--rootdir",
            tmp_path,
            "-rA",
        ]
        command = [sys.executable, "-m", "pytest", *map(str, options), str(tmp_path)]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
        outcomes = re.findall(r"^(PASSED|FAILED|ERROR) \S*?(?:::(\w+))?(?= - |$)", printed, re.MULTILINE)
        return {name: outcome for outcome, name in outcomes}, printed

    return run_suite


def test_marked_tests_alone_are_run_again(run):
    outcomes, printed = run(SUITE)
    assert outcomes == {
        "test_marked": "PASSED",
        "test_marked_failing_thrice": "FAILED",
        "test_marked_stale": "FAILED",
        "test_unmarked": "FAILED",
        "test_method": "PASSED",
    }
    assert "5 rerun" in printed


def test_mark_without_reason_is_an_error_of_the_collection(run):
    marks = ["timing", "timing()", "timing('')", "timing(reason='named')"]
    _, printed = run(*(f"import pytest\n\n@pytest.mark.{mark}\ndef test_it():\n    pass\n" for mark in marks))
    assert printed.count('test_it: say why, as in @pytest.mark.timing("reason")') >= len(marks)
    assert f"{len(marks)} errors" in printed
