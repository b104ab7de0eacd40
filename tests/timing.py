"""Second chances: a test that a busy machine can break says so with its reason, and is run again when it fails.

    pytestmark = pytest.mark.timing("waits for a killed worker to be replaced")

or the same as a decorator. No other test is run again, nor is one that found something stale (`rerun_except` in
pyproject.toml): of those one failure in a hundred runs is the one to know of. `--force-reruns 0` gives none to any.
"""

import pytest

CHANCES = 2
"""How often a marked test is run again before it has failed."""


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem():
    """Have the marked tests run again. A mark without its reason is an error of the collection."""
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Item) and (marks := list(item.iter_markers("timing"))):
            for mark in marks:
                if len(mark.args) != 1 or mark.kwargs or not str(mark.args[0]).strip():
                    raise pytest.Collector.CollectError(f'{item.name}: say why, as in @pytest.mark.timing("reason")')
            item.add_marker(pytest.mark.flaky(reruns=CHANCES))
    return made
