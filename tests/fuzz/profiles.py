"""How many examples to try: ``FUZZ=deep pytest tests/fuzz`` for a run of hours, ``fast`` (the default) for every run.

Not loaded as Hypothesis's global profile: only the targets in this folder use it.
"""

import os

from hypothesis import HealthCheck, settings

PROFILES = {
    "fast": settings(max_examples=60, deadline=None),
    "deep": settings(max_examples=50_000, deadline=None, suppress_health_check=list(HealthCheck)),
}

PROFILE = PROFILES[os.environ.get("FUZZ", "fast")]
