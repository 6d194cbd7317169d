"""The page: `python app.py`, then open the address that it prints. Options: `python app.py --help`."""

from __future__ import annotations

import argparse
import sys

from emotion.errors import UserError


def main() -> int:
    """Read the options, load nothing yet, serve the page."""
    parser = argparse.ArgumentParser(description="Emotion recognition in the browser.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all; default %(default)s"
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--model", action="append", default=[], metavar="FOLDER", help="also offer this checkpoint")
    parser.add_argument("--mcp", action="store_true", help="also serve the functions as MCP tools (needs gradio[mcp])")
    args = parser.parse_args()

    from emotion.ui import page, pieces

    try:
        page.launch(pieces.Models(args.model), args.host, args.port, args.mcp)
    except (UserError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
