"""Score of the ABAW challenges' multi-task track, from the third one on (Kollias, CVPR workshops 2022).

The sum of three parts: mean CCC of valence and arousal, macro F1 of the expressions, mean F1 of the action units.
"""

from __future__ import annotations

import numpy as np

from .action_units_core import counts
from .action_units_core import scores as unit_scores
from .ccc_core import ccc
from .expression_core import confusion
from .expression_core import scores as expression_scores


def abaw_mtl(
    valence_arousal: tuple[np.ndarray, np.ndarray],
    expression: tuple[np.ndarray, np.ndarray],
    action_units: tuple[np.ndarray, np.ndarray],
    classes: int = 8,
) -> dict[str, float]:
    """The score and its parts.

    Args:
        valence_arousal: predictions and references [N, 2]; NaN (or below -1, the challenge's marker -5) is unlabelled.
        expression: class indices [N] of both; a negative reference is unlabelled.
        action_units: 0 or 1 [N, U] of both; any other reference is unlabelled.
        classes: number of expressions; F1 is averaged over all of them.

    Returns:
        "score" in [-1, 3], "ccc_valence", "ccc_arousal", "expression_f1", "action_unit_f1". A part without any label is
        NaN and makes the score NaN.
    """
    predicted, wanted = (np.asarray(v, np.float64) for v in valence_arousal)
    wanted = np.where(wanted < -1, np.nan, wanted)
    valence, arousal = (ccc(predicted[:, k], wanted[:, k]) for k in range(2))
    f1 = float(expression_scores(confusion(*expression, classes), fixed=True)["f1"])
    cells = counts(*action_units)
    units = float(unit_scores(cells)["f1"]) if cells.sum() else float("nan")
    return {
        "score": (valence + arousal) / 2 + f1 + units,
        "ccc_valence": valence,
        "ccc_arousal": arousal,
        "expression_f1": f1,
        "action_unit_f1": units,
    }
