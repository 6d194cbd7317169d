"""What the leaderboard shows per track: which task, which columns, and which figure decides."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("table", "md", "csv", "json", "html")


@dataclass(frozen=True)
class Track:
    """One kind of table.

    Attributes:
        task: task of a result, or "" where rows come from elsewhere (speed).
        title: for people.
        metrics: columns; the first one decides the order unless a table says otherwise.
        lower: metrics of which less is better.
    """

    task: str
    title: str
    metrics: tuple[str, ...]
    lower: tuple[str, ...] = ()


_RMSE = ("rmse_valence", "rmse_arousal", "rmse")
_TRUST = ("ece", "aurc")  # calibration; area under risk against coverage
TRACKS = {
    "expression": Track(
        "expression", "Expression", ("accuracy", "f1", "balanced_accuracy", "total", *_TRUST), _TRUST,
    ),
    "valence-arousal": Track(
        "valence_arousal", "Valence and arousal", ("ccc", "ccc_valence", "ccc_arousal", *_RMSE[:2], "aurc"),
        (*_RMSE, "aurc"),
    ),
    "action-units": Track("action_units", "Action units", ("total", "f1", "accuracy", *_TRUST), _TRUST),
    "audiovisual": Track(
        "audiovisual", "Audiovisual expression",
        ("accuracy", "accuracy audio", "accuracy video", "accuracy noisy audio", "accuracy noisy video",
         "mean_recall", "f1", "weighted_f1", "top5"),
    ),
    "scene": Track(
        "emotions", "Emotions in scenes",
        ("mAP", "mAP interpolated", "mAP detected", "mAP detected .5", "VAD error"), ("VAD error",),
    ),
    "detection": Track("detection", "Detection of people", ("AP", "AP .5", "AP .75", "AR-100")),
    "speed": Track(
        "", "Speed",
        ("ms_1", "images_per_second_8", "images_per_second_32", "photo_1_ms", "photo_5_ms", "photo_20_ms", "video_fps",
         "peak_memory_mb"),
        ("ms_1", "photo_1_ms", "photo_5_ms", "photo_20_ms", "peak_memory_mb"),
    ),
}  # fmt: skip


def main_metric(track: str, dataset: str) -> str:
    """The figure that decides a table: the track's first one, but the challenge's total on Aff-Wild2."""
    challenge = track == "expression" and dataset.startswith("affwild2")
    return "total" if challenge else TRACKS[track].metrics[0]
