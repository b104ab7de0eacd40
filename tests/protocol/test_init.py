"""What the package exports, and that it needs only the standard library."""

import subprocess
import sys
from pathlib import Path

import protocol


def test_every_exported_name_exists():
    assert sorted(protocol.__all__) == protocol.__all__
    for name in protocol.__all__:
        assert getattr(protocol, name) is not None


def test_import_needs_only_the_standard_library_and_no_io_module():
    """In an interpreter without site-packages; modules for I/O must not be imported either."""
    source = "import sys, protocol; print(*({'asyncio', 'socket', 'ssl', 'logging', 'selectors'} & set(sys.modules)))"
    root = Path(protocol.__file__).parent.parent
    result = subprocess.run([sys.executable, "-S", "-c", source], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
