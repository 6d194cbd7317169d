"""`python -m emotion.datasets`: annotation files of scene data sets in the forms that BENet's original reads."""

from __future__ import annotations

import argparse
import sys

from emotion.datasets.scenes import FORMATS, convert
from emotion.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Convert; prints the files written."""
    parser = argparse.ArgumentParser(prog="python -m emotion.datasets", description=__doc__)
    parser.add_argument("--emotic", metavar="DIR", help="folder of EMOTIC")
    parser.add_argument("--heco", metavar="DIR", help="folder of HECO")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="where to write the JSON files")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="how boxes are written")
    given = parser.parse_args(arguments)
    try:
        for path in convert(given.out, given.emotic, given.heco, given.format):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
