"""Tests; `emotion`, `train` and `eval` are imported from the root of the repository."""
