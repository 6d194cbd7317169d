"""The page as a Space. EMOTION_MODELS names further models, separated by blanks (OWNER/NAME on the Hub)."""

import os

from emotion import zerogpu  # isort: skip
from emotion.predict import FacePredictor
from emotion.predict.scenes import ScenePredictor
from emotion.ui import page, pieces

zerogpu.lend(FacePredictor, "images")
zerogpu.lend(ScenePredictor, "images", "image_and_maps")
models = pieces.Models(os.environ.get("EMOTION_MODELS", "").split())
served, _ = page.launch(models, host="0.0.0.0", port=int(os.environ.get("PORT", "7860")))
served.block_thread()
