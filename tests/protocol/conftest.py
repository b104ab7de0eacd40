"""Hypothesis has no deadline here: how long one example takes on a busy machine says nothing about the codec."""

from hypothesis import settings

settings.register_profile("patient", settings(deadline=None))
settings.load_profile("patient")
