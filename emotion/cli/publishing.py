"""`python -m emotion publish`: a checkpoint folder becomes a repository on a Hub."""

from __future__ import annotations

import argparse

from emotion.cli.console import show
from emotion.hub import CARD, publishing


def run(args: argparse.Namespace) -> int:
    """The command; with `--dry-run` it prints what would be sent, and contacts nobody."""
    if not args.dry_run:
        show(f"Published: {publishing.publish(args.folder, args.repo, args.private, results=args.results)}")
        return 0
    files = publishing.contents(args.folder, args.repo, args.results)
    sizes = {k: len(v) if isinstance(v, bytes) else v.stat().st_size for k, v in files.items()}
    show(
        f"Not sent; {args.repo} ({'private' if args.private else 'public'}) would get:",
        *(f"- {name}, {size / 1e6:.2f} MB" for name, size in sizes.items()),
        "",
        f"{CARD}:",
        "",
        files[CARD].decode(),
    )
    return 0
