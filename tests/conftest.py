"""Settings for all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run, and no assertion about time: test machines are slow and shared.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")
