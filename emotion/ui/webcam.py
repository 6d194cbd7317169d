"""The Webcam tab: faces of a camera read while they move; every session has tracks and models' states of its own."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from html import escape

import gradio as gr
import numpy as np

from emotion import draw, timeline
from emotion.errors import UserError
from emotion.faces.detectors import MTCNN
from emotion.outputs import Result
from emotion.predict import FacePredictor
from emotion.predict.sequences import FaceStream
from emotion.ui import face, pieces

SEARCHED = 480  # pixels, longest side at which faces are searched: who sits at a camera is near
DETECT_EVERY = 3  # frames; between two searches boxes move on by themselves
INTERVAL = 0.08  # seconds between two frames that the browser sends
MINUTES = 5  # after which a stream ends by itself
SESSIONS = 4  # streams at once
CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
EMPTY = pieces.note(
    "Start the camera to begin.",
    "The browser asks for permission. Frames are read by this server while the camera is on, and kept nowhere. "
    f"The camera stops by itself after {MINUTES} minutes.",
)
NO_FACE = pieces.note("No face in sight.", "Come closer, and turn towards the camera.")


@dataclass
class Session:
    """What one visitor's stream remembers.

    Attributes:
        model: the model's name; closest: whether only the closest face is read.
        stream: tracks and models' states.
        smoother: averages what is shown.
        started: when the first frame came; recent: when the last frames came, both in seconds of the system's clock.
        spent: seconds that each of the last frames took.
    """

    model: str
    closest: bool
    stream: FaceStream
    smoother: timeline.Smoother = field(default_factory=timeline.Smoother)
    started: float = field(default_factory=time.monotonic)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    spent: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def read(self, picture: np.ndarray, smoothing: float) -> Result:
        """The next frame, smoothed."""
        now = time.monotonic()
        self.smoother.seconds = smoothing
        result = self.smoother(self.stream.read(picture, now - self.started))
        self.recent.append(now)
        self.spent.append(time.monotonic() - now)
        return result

    @property
    def pace(self) -> str:
        """Frames per second and time per frame, of late."""
        if len(self.recent) < 3:
            return "measuring…"
        rate = (len(self.recent) - 1) / (self.recent[-1] - self.recent[0])
        return f"{rate:.1f} frames per second, {1000 * float(np.median(self.spent)):.0f} ms each"


class WebcamTab:
    """The tab's components, and what happens while the camera is on."""

    def __init__(self, models: pieces.Models, model: gr.Dropdown) -> None:
        self.models = models
        self.detector = MTCNN(longest_side=SEARCHED)
        session = gr.State(None, time_to_live=120)
        with gr.Row(equal_height=False, elem_classes="em-columns"):
            with gr.Column(scale=7, min_width=320, elem_classes="em-stage em-loose"):
                shown = gr.HTML(EMPTY, elem_id="em-webcam-shown")
            with gr.Column(scale=5, min_width=320, elem_classes="em-readout"):
                camera = gr.Image(
                    label="Camera", sources=["webcam"], streaming=True, type="numpy", format="jpeg", height=220,
                    buttons=[], webcam_options=gr.WebcamOptions(mirror=False, constraints=CAMERA),
                    elem_id="em-webcam-camera",
                )  # fmt: skip
                closest = gr.Checkbox(label="Closest face only", elem_id="em-webcam-closest")
                smoothing = gr.Slider(
                    0, 2, timeline.DRAWN, step=0.1, label="Smoothing over time, seconds", elem_id="em-webcam-smoothing"
                )
                readout = gr.HTML("", elem_id="em-webcam-readout")
        camera.stream(
            self.frame, [camera, session, model, closest, smoothing], [session, shown, readout],
            stream_every=INTERVAL, time_limit=60 * MINUTES, concurrency_limit=SESSIONS, concurrency_id="webcam",
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip

    def frame(
        self, picture: np.ndarray | None, session: Session | str | None, model: str, closest: bool, smoothing: float
    ) -> tuple[Session | str | None, str, str]:
        """Read one frame: the session afterwards, the frame with its faces, and what the closest face shows.

        While a model is being loaded the session is its name.
        """
        if picture is None:
            return session, EMPTY, ""
        if session != model and not self.models.is_loaded(model):
            return model, pieces.busy(f"Loading {model}…"), ""  # said now, done with the next frame
        try:
            if not isinstance(session, Session) or (session.model, session.closest) != (model, closest):
                session = self.session(model, closest)
            result = session.read(picture, smoothing)
        except UserError as problem:
            return None, pieces.error(str(problem)), ""
        drawn = pieces.data_uri(draw.overlay(picture, result))
        alt = f"The camera's picture with {len(result)} face{'' if len(result) == 1 else 's'}"
        notes = "".join(f'<p class="em-text">{escape(note)}</p>' for note in result.notes)
        figure = (
            f'<img src="{drawn}" alt="{alt}" decoding="sync"><p class="em-text" id="em-webcam-pace">{session.pace}</p>'
            f"{notes}"
        )
        nearest = int(result.faces.areas.argmax()) if len(result) else None
        return session, figure, NO_FACE if nearest is None else face.live(result, nearest)

    def session(self, model: str, closest: bool) -> Session:
        """A new stream.

        Raises:
            UserError: no such model, or it cannot be used here.
        """
        network = self.models.predictor(model).model
        predictor = FacePredictor(network, self.detector, "largest" if closest else "all")
        return Session(model, closest, predictor.stream(DETECT_EVERY))


def tab(models: pieces.Models, model: gr.Dropdown) -> None:
    """Build the tab's contents. It is no API: single frames go to `/analyze_image`, films to `/analyze_video`."""
    WebcamTab(models, model)
