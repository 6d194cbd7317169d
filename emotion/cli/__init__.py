"""The commands of `python -m emotion`, one per file; each has `run(args) -> exit code`."""
