"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes with several threads each would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run, and no assertion about time: test machines are slow and shared.
settings.register_profile("project", derandomize=True, deadline=None)
settings.load_profile("project")
