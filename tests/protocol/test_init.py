"""The package's face: names that exist, and nothing beyond the standard library behind them."""

import subprocess
import sys
from pathlib import Path

import protocol


def test_names_exist():
    assert sorted(protocol.__all__) == protocol.__all__
    for name in protocol.__all__:
        assert getattr(protocol, name) is not None


def test_standard_library_only():
    """In an interpreter without site-packages, and without the modules that would mean I/O."""
    source = "import sys, protocol; print(*({'asyncio', 'socket', 'ssl', 'logging', 'selectors'} & set(sys.modules)))"
    root = Path(protocol.__file__).parent.parent
    result = subprocess.run([sys.executable, "-S", "-c", source], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
