"""The vocabularies: what every predicted index means, and how vocabularies map onto each other.

Canonical names are lower-case nouns. `canonical` understands the spellings found in data sets and papers.
"""

from __future__ import annotations

# Expressions. Same eight names, in the order each data set or method defines.
AFFECTNET = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
CKPLUS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "contempt", "neutral")
FER2013 = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
ABAW = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
RAVDESS = ("neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise")

VALENCE_AROUSAL = ("valence", "arousal")

# Facial Action Coding System: number -> name (Ekman & Friesen 1978).
ACTION_UNIT_NAMES = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU5": "upper lid raiser",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU9": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU17": "chin raiser",
    "AU20": "lip stretcher",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU45": "blink",
}
ABAW2_ACTION_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26")
ABAW1_ACTION_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU12", "AU15", "AU20", "AU25")

EMOTIC = (
    "Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval", "Disconnection",
    "Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem", "Excitement", "Fatigue", "Fear",
    "Happiness", "Pain", "Peace", "Pleasure", "Sadness", "Sensitivity", "Suffering", "Surprise", "Sympathy",
    "Yearning",
)  # fmt: skip
VAD = ("valence", "arousal", "dominance")
HECO = ("Anger", "Disgust", "Excitement", "Fear", "Happiness", "Peace", "Sadness", "Surprise")

_ALIASES = {
    "neutrality": "neutral", "happy": "happiness", "joy": "happiness", "sad": "sadness", "surprised": "surprise",
    "fearful": "fear", "afraid": "fear", "disgusted": "disgust", "angry": "anger", "contemptuous": "contempt",
    "calmness": "calm",
}  # fmt: skip


def canonical(name: str) -> str:
    """The canonical form of an expression name in any usual spelling ("Happy", "angry", ...).

    Raises:
        ValueError: the name belongs to no expression vocabulary.
    """
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    if key not in AFFECTNET and key != "calm":
        raise ValueError(f"unknown expression {name!r}; known: {', '.join((*AFFECTNET, 'calm'))}")
    return key


def index_map(source: tuple[str, ...], target: tuple[str, ...]) -> list[int]:
    """For every label of `source` its index in `target`, or -1 where `target` lacks it."""
    return [target.index(name) if name in target else -1 for name in source]
