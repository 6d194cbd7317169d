"""The page: `python app.py`, then open the address that it prints. Options: `python app.py --help`."""

from __future__ import annotations

import argparse
import sys

from emotion.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Read the options and serve the page until Ctrl-C; models are loaded when they are first used."""
    parser = argparse.ArgumentParser(description="Emotion recognition in the browser.", allow_abbrev=False)
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen; 0.0.0.0 for everybody; default %(default)s"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    more = "also offer this checkpoint: a folder, or OWNER/NAME on a Hub; may be given repeatedly"
    parser.add_argument("--model", action="append", default=[], metavar="NAME|FOLDER", help=more)
    parser.add_argument("--mcp", action="store_true", help="also serve the functions as MCP tools (needs mcp)")
    args = parser.parse_args(argv)

    from emotion.ui import page, pieces

    try:
        served, address = page.launch(pieces.Models(args.model), args.host, args.port, args.mcp)
    except (UserError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(f"The page is open at {address}  (Ctrl-C ends it)", flush=True)
    served.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
