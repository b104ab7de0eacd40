"""Which processes a run under coverage measures: those of the tests marked for it."""

import os

import pytest

from tests import measuring


@pytest.fixture
def measures(request, monkeypatch):
    """`measures()`: whether a process that this test starts would be measured."""
    monkeypatch.setenv(measuring.VARIABLE, "of the run itself")
    monkeypatch.setattr(measuring, "CONFIG", "of the run itself")
    monkeypatch.setattr(measuring, "ALL", False)

    def asked():
        measuring.pytest_runtest_setup(request.node)
        return os.environ.get(measuring.VARIABLE) == "of the run itself"

    return asked


def test_processes_of_marked_tests_alone_are_measured(measures, request):
    assert not measures()
    request.applymarker("measured")
    assert measures()


def test_every_process_is_measured_when_asked_for(measures, monkeypatch):
    monkeypatch.setattr(measuring, "ALL", True)
    assert measures()


def test_nothing_is_measured_in_a_run_without_coverage(measures, monkeypatch, request):
    monkeypatch.setattr(measuring, "CONFIG", None)
    request.applymarker("measured")
    assert not measures()
