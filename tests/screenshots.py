"""Pictures of the page in every state, for looking at: `python tests/screenshots.py FOLDER [--model CHECKPOINT]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from playwright.sync_api import Page

from tests import browser as web

WIDTHS = {1440: 900, 1024: 768, 390: 844}
# State -> tab that it is on.
STATES = {
    "empty": "image", "portrait": "image", "group": "image", "error": "image",
    "video_empty": "video", "video": "video", "webcam": "webcam", "scene_empty": "scene", "scene": "scene",
    "map": "scene", "voice_empty": "voice", "voice": "voice",
    "compare": "compare", "leaderboard": "leaderboard", "models": "models",
}  # fmt: skip


def bring_into(page: Page, state: str, damaged: Path) -> None:
    """Use the page until it shows the state."""
    if state in ("portrait", "group"):
        page.click(f"button[data-file='{'astronaut' if state == 'portrait' else 'conference_1927'}.jpg']")
        page.wait_for_selector("#em-details .em-big")
    elif state == "error":
        page.set_input_files("#em-picture input[type=file]", damaged)
        page.wait_for_selector("#em-message .em-error")
    elif state == "video":
        page.click("#em-video-examples button[data-file='synthetic_faces.mp4']")
        page.wait_for_selector("#em-video-timeline .em-strip")
    elif state in ("scene", "map") and page.locator("#em-scene-examples").count():  # there is a scene model
        page.click("#em-scene-examples button[data-file='tennis.jpg']")
        page.wait_for_selector("#em-scene-details .em-big, #em-scene-message:has-text('No person')")
        if state == "map":
            page.click("#em-scene .em-maps button >> nth=1")
    elif state == "voice" and page.locator("#em-voice-examples").count():
        page.click("#em-voice-examples button")
        page.wait_for_selector("text=Together and alone")
    elif state == "compare":
        page.click("#em-compare-examples button[data-file='astronaut.jpg']")
        page.wait_for_selector("#em-compare-details .em-card")
    page.wait_for_timeout(800)


def main() -> None:
    """Take all pictures; problems of the page are printed and end with exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, action="append", default=[], help="offer this checkpoint first")
    parser.add_argument("--only", choices=STATES, action="append", help="only these states")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as scratch, web.served(args.model) as address, web.chromium() as browser:
        damaged = Path(scratch) / "damaged.jpg"
        damaged.write_bytes(b"not a picture")
        for (width, height), scheme, state in product(WIDTHS.items(), ("light", "dark"), args.only or STATES):
            query = f"?tab={STATES[state]}"
            size = {"width": width, "height": height}
            page = web.open_page(browser, address, problems, query, viewport=size, color_scheme=scheme)
            page.set_default_timeout(5 * web.TIMEOUT)
            bring_into(page, state, damaged)
            page.screenshot(path=args.folder / f"{state}_{width}_{scheme}.png", full_page=True)
            page.context.close()
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
