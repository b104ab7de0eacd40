"""How long to search: ``FUZZ=deep pytest tests/fuzz`` for a night, ``fast`` (the default) for every run.

Not loaded as Hypothesis's global profile, so that it concerns the targets here and no other property.
"""

import os

from hypothesis import HealthCheck, settings

PROFILES = {
    "fast": settings(max_examples=60, deadline=None),
    "deep": settings(max_examples=50_000, deadline=None, suppress_health_check=list(HealthCheck)),
}

PROFILE = PROFILES[os.environ.get("FUZZ", "fast")]
