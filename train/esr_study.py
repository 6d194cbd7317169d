"""`python -m train.esr_study --data FOLDER`: shared base against a single network and separate networks, on FER+.

The claim of the ESR paper in small: an ensemble whose branches share a base should be as good as one of separate
networks at less cost. Everything that is trained is a variation of the recipe `esr-study`; runs are resumable.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emotion import uncertainty
from emotion.datasets import Samples, ferplus
from emotion.errors import UserError
from emotion.models.base import multiply_adds
from eval.metrics.calibration import calibration_core as calibration
from eval.metrics.risk_coverage.risk_coverage_core import auroc
from train import esr, loop
from train import recipe as recipes
from train.data import FaceData, balance
from train.recipe import Recipe
from train.report import pictures_seen

POOL = 1000  # faces per class that a seed's networks are trained on; stages draw their subsets from them
REPLICATES = 1000
VARIANTS = {  # "separate" is the traditional ensemble, "staged" the paper's training
    "single": "single network",
    "separate": "separate networks",
    "staged": "shared base, branch by branch",
    "joint": "shared base, all at once",
}
# Figure -> heading; accuracy, likelihood and calibration are of the mean probabilities, AUROC is of finding errors.
FIGURES = {
    "member_accuracy": "one member's accuracy",
    "accuracy": "accuracy",
    "plurality_accuracy": "accuracy of votes",
    "nll": "NLL",
    "ece": "ECE",
    "auroc_disagreement": "AUROC, disagreement",
    "auroc_entropy": "AUROC, entropy",
}


def variant(recipe: Recipe, name: str) -> Recipe:
    """The recipe of one network of a variant (of `VARIANTS`).

    Members of "separate" see a subset each, like the branches of "staged"; the others see all faces of the pool.
    """
    first, model = recipe.rest["stages"][0], dict(recipe.rest["model"])
    stages = {
        "single": [first | {"per_class": 0}],
        "separate": [first],
        "staged": recipe.rest["stages"],
        "joint": [first | {"per_class": 0, "active": model["branches"], "lr_old": first["lr_new"]}],
    }[name]
    if name in ("single", "separate"):
        model["branches"] = 1
    return dataclasses.replace(recipe, rest=recipe.rest | {"model": model, "stages": stages})


def size(recipe: Recipe, name: str) -> int:
    """How many networks a variant consists of."""
    return recipe.rest["model"]["branches"] if name == "separate" else 1


def members(
    recipe: Recipe, name: str, seed: int, train: Samples, valid: Samples, out: Path
) -> tuple[np.ndarray, float]:
    """Train a variant, or read what an earlier call trained: logits [B, N, K] of `valid`, seconds of training."""
    file = out / f"{name}-{seed}.npz"
    if not file.is_file():
        networks = size(recipe, name)
        parts, seconds = [], 0.0
        for k in range(networks):
            settings = dataclasses.replace(recipe.settings, seed=100 * seed + k)
            one = dataclasses.replace(variant(recipe, name), settings=settings)
            trainee = esr.assemble(one, [train], [valid])
            history = loop.fit(trainee, out / f"{name}-{seed}-{k}", settings)
            parts.append(esr.predict(trainee.model, trainee.valid)["expression"])
            seconds += sum(row["seconds"] for row in history)
        np.savez(file, logits=torch.cat(parts).numpy(), seconds=seconds)
    with np.load(file) as stored:
        return stored["logits"], float(stored["seconds"])


def pool(samples: Samples, seed: int) -> Samples:
    """The faces that the networks of one seed are trained on."""
    return samples.subset(balance(samples.classes(), 0, POOL, np.random.default_rng(seed)))


def unseen(valid: Samples, train: Samples, trainee: esr.ESRTrainee) -> Samples:
    """Validation faces without those that also occur, pixel for pixel, among the training faces."""
    spec, labels = trainee.model.config.input, trainee.model.labels
    return valid.subset(~pictures_seen(FaceData([valid], spec, labels), [train]))


@dataclasses.dataclass(frozen=True)
class Judged:
    """Per face [N]: what the figures are means of, or are ranked by."""

    right: np.ndarray
    plurality: np.ndarray
    member: np.ndarray
    confidence: np.ndarray
    nll: np.ndarray
    disagreement: np.ndarray
    entropy: np.ndarray

    def figures(self, rows: np.ndarray) -> dict[str, float]:
        """`FIGURES` on some faces; disagreement is NaN without a second member."""
        right, wrong = self.right[rows], ~self.right[rows]
        several = bool(self.disagreement.any())
        return {
            "member_accuracy": float(self.member[rows].mean()),
            "accuracy": float(right.mean()),
            "plurality_accuracy": float(self.plurality[rows].mean()),
            "nll": float(self.nll[rows].mean()),
            "ece": calibration.calibration(self.confidence[rows], right)["ece"],
            "auroc_disagreement": auroc(self.disagreement[rows], wrong) if several else float("nan"),
            "auroc_entropy": auroc(self.entropy[rows], wrong),
        }


def judge(logits: np.ndarray, classes: np.ndarray) -> Judged:
    """What members with logits [B, N, K] say about faces of known class [N]."""
    probabilities = torch.from_numpy(logits).softmax(-1).numpy()
    mean = probabilities.mean(axis=0)
    choices = logits.argmax(-1)
    votes = np.eye(logits.shape[-1])[choices].sum(axis=0)
    parts = uncertainty.categorical(probabilities)
    return Judged(
        right=mean.argmax(-1) == classes,
        plurality=votes.argmax(-1) == classes,
        member=(choices == classes).mean(axis=0),
        confidence=mean.max(-1),
        nll=calibration.nll_classes(mean, classes),
        disagreement=parts["epistemic"],
        entropy=parts["total"],
    )


def intervals(judged: dict[str, list[Judged]], seed: int = 0) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Mean over the training seeds with a 95 % interval, per variant and figure; also of differences to "separate".

    The interval is from a bootstrap that draws training seeds and faces, the same for all variants.

    Returns:
        variant, or "variant - separate" -> figure -> mean, low, high.
    """
    runs, faces = len(judged["single"]), len(judged["single"][0].right)
    rng = np.random.default_rng(seed)

    def means(chosen: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        table = {v: np.mean([list(j[r].figures(rows).values()) for r in chosen], axis=0) for v, j in judged.items()}
        return table | {f"{v} - separate": table[v] - table["separate"] for v in table if v != "separate"}

    drawn = [means(rng.integers(0, runs, runs), rng.integers(0, faces, faces)) for _ in range(REPLICATES)]
    centre = means(np.arange(runs), np.arange(faces))
    out = {}
    for name, values in centre.items():
        low, high = np.quantile([d[name] for d in drawn], [0.025, 0.975], axis=0)
        out[name] = dict(zip(FIGURES, zip(values.tolist(), low.tolist(), high.tolist())))
    return out


def costs(networks: dict[str, list[nn.Module]], rounds: int = 15, batch: int = 32) -> dict[str, dict[str, float]]:
    """Parameters, multiply-adds and inference time per face of every variant's networks together.

    Times are medians of rounds in turn, in the precision and on the number of threads that torch is set to.
    """
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(rounds):
            for name, parts in networks.items():
                faces = parts[0].example().expand(batch, -1, -1, -1)
                start = time.perf_counter()
                for part in parts:
                    part(faces)
                taken[name].append((time.perf_counter() - start) / batch)
    return {
        name: {
            "parameters": sum(p.numel() for part in parts for p in part.parameters()),
            "multiply_adds": sum(multiply_adds(part) for part in parts),
            "milliseconds": 1000 * float(np.median(taken[name])),
        }
        for name, parts in networks.items()
    }


def study(recipe: Recipe, data: Path, out: Path, seeds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train what is missing below `out` and measure everything; also written to `out/figures.json`."""
    train, valid = (ferplus.load(data, split) for split in ("train", "valid"))
    networks = {
        name: [esr.assemble(variant(recipe, name), [train], [valid]).model.eval() for _ in range(size(recipe, name))]
        for name in VARIANTS
    }
    spec = esr.assemble(recipe, [train], [valid])
    valid = unseen(valid, train, spec)
    classes = FaceData([valid], spec.model.config.input, spec.model.labels).classes()
    judged: dict[str, list[Judged]] = {name: [] for name in VARIANTS}
    seconds = dict.fromkeys(VARIANTS, 0.0)
    for seed in range(seeds):
        mine = pool(train, seed)
        for name in VARIANTS:
            logits, taken = members(recipe, name, seed, mine, valid, out)
            judged[name].append(judge(logits, classes))
            seconds[name] += taken / seeds
            progress(f"seed {seed}, {VARIANTS[name]}: accuracy {judged[name][-1].right.mean():.4f}")
    cost = {name: c | {"training_seconds": seconds[name]} for name, c in costs(networks).items()}
    faces = {"train": len(pool(train, 0)), "valid": len(valid)}
    found = {"seeds": seeds, "faces": faces, "cost": cost, "figures": intervals(judged)}
    (out / "figures.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def tables(found: dict[str, Any]) -> str:
    """Costs, figures and differences as Markdown."""
    single = found["cost"]["single"]
    lines = ["| | parameters | multiply-adds | time per face | training time |", "|---|---|---|---|---|"]
    for name, title in VARIANTS.items():
        c = found["cost"][name]
        ratio = {k: c[k] / single[k] for k in ("milliseconds", "training_seconds")}
        lines.append(
            f"| {title} | {c['parameters']:,} | {c['multiply_adds'] / 1e6:.1f} M "
            f"| {ratio['milliseconds']:.2f} x | {ratio['training_seconds']:.2f} x |"
        )
    titles = VARIANTS | {f"{n} - separate": f"{t}, minus separate" for n, t in VARIANTS.items() if n != "separate"}
    lines += ["", "| | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for name, title in titles.items():
        cells = [
            f"{v:.3f} ({a:.3f} to {b:.3f})" if np.isfinite(v) else "" for v, a, b in found["figures"][name].values()
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.esr_study", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="FER+")
    parser.add_argument("--out", type=Path, default=Path("runs/esr-study"), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of every variant; default: %(default)s")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        found = study(recipes.load("esr-study"), args.data, args.out, args.seeds, print)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{found['seeds']} seeds, {found['faces']['train']} training and {found['faces']['valid']} unseen faces\n")
    print(tables(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
