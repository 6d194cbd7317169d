"""Training of the audiovisual fusion: cross-entropy with modality dropout, validated under every modality condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from emotion import hub
from emotion.datasets import ravdess
from emotion.errors import UserError
from emotion.measures import FaceMeter
from emotion.models.avfusion import AVFusion, AVFusionConfig, Clips, under
from emotion.models.base import FaceInput, VectorInput
from emotion.models.efficientface import EfficientFace
from eval.metrics.expression.expression_core import confusion, scores
from train import report as figures_of
from train.avfusion_data import (
    DROPOUTS,
    Batch,
    BorrowedFaces,
    ClipData,
    Turn,
    Vary,
    mixup,
    modality_dropout,
    standardised,
)
from train.loop import Schedule, Stage
from train.recipe import Recipe, parse, samples

RESAMPLES = 2000  # of speakers, for the intervals
LIMITS = "Training clips are few and, in RAVDESS, acted: two sentences by 24 North American actors in a studio."
BORROWED = (
    "**Voice and face are different people**: the set has no films here, so every clip got still faces of its "
    "expression from other sets, different ones in training and test{instead}. Figures with both modalities say how "
    "well two independent sources of evidence are joined, not how good the model is on films."
)
BORROWED_ROWS = {
    "both": "voice and borrowed face",
    "audio": "voice alone",
    "video": "borrowed face alone",
    "noisy audio": "noisy voice, borrowed face",
    "noisy video": "voice, noisy borrowed face",
}


@dataclass(frozen=True)
class Phase:
    """One entry of a recipe's `stages`.

    Attributes:
        epochs: how many.
        lr: learning rate; lr_backbone: of the face network, the same unless given, 0 freezes it.
        evaluate_every: epochs between validations.
        schedule: factor on the learning rates.
    """

    epochs: int
    lr: float
    lr_backbone: float | None = None
    evaluate_every: int = 1
    schedule: Schedule = field(default_factory=Schedule)


@dataclass(frozen=True)
class Options:
    """A recipe's further fields.

    Attributes:
        stages: what is trained how.
        batch: clips per batch, before modality dropout multiplies them.
        modality_dropout: "softhard", "hard", "noise" or "none".
        turn: augmentation of pictures; vary: of sound; mixup: strength of blending clips, 0 for none.
        noise: standard deviation of what is added to standardised measurements and sound features.
        smoothing: label smoothing.
        standardise: compute mean and deviation of the inputs on the training clips (the original has none).
        borrow: for sets of voices without films: every clip gets faces of other people with its expression, from the
            recipe's data `faces_train`, `faces_valid` and `faces_test`; the table names stand-ins for expressions that
            the pictures lack, such as {calm: neutral}.
        select: the best epoch has the highest validation accuracy with "both" modalities, or on the "mean" of both,
            audio alone and pictures alone.
        workers: processes that load pictures.
    """

    stages: tuple[Phase, ...]
    batch: int = 8
    modality_dropout: str = "softhard"
    turn: Turn = field(default_factory=Turn)
    vary: Vary = field(default_factory=Vary)
    mixup: float = 0.0
    noise: float = 0.0
    smoothing: float = 0.0
    standardise: bool = False
    borrow: dict[str, str] | None = None
    select: str = "both"
    workers: int = 0

    def __post_init__(self) -> None:
        if self.modality_dropout not in DROPOUTS or self.select not in ("both", "mean"):
            raise ValueError(f"modality_dropout: one of {', '.join(DROPOUTS)}; select: both or mean")


class AVFusionTrainee:
    """A fusion model in training; without `valid` the last epoch is kept."""

    def __init__(
        self, model: AVFusion, train: ClipData, valid: ClipData | None, test: ClipData | None, options: Options
    ) -> None:
        self.model, self.train, self.valid, self.test, self.options = model, train, valid, test, options

    def stages(self) -> list[Stage]:
        """One stage per phase."""
        return [
            Stage(f"fusion-{k + 1}", phase.epochs, self._groups(phase), phase.schedule, phase.evaluate_every, phase)
            for k, phase in enumerate(self.options.stages)
        ]

    def _groups(self, phase: Phase) -> list[tuple[float, list[nn.Parameter]]]:
        named = dict(self.model.named_parameters())
        face = [p for name, p in named.items() if name.startswith("backbone.")]
        rest = [p for name, p in named.items() if not name.startswith("backbone.")]
        rate = phase.lr if phase.lr_backbone is None else phase.lr_backbone
        return [(phase.lr, rest), *([(rate, face)] if rate and face else [])]

    def begin(self, stage: Stage) -> None:
        """Freeze what does not learn."""
        learning = {id(p) for _, group in stage.groups for p in group}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in learning)

    def batches(self, stage: Stage) -> DataLoader:
        """Shuffled batches of all training clips."""
        return self.train.loader(self.options.batch, shuffle=True, workers=self.options.workers)

    def loss(self, model: nn.Module, batch: Batch, stage: Stage) -> Tensor:
        """Cross-entropy of one augmented batch, lacking modalities included."""
        features, visual, classes = batch
        self.model.train()
        if self.model.backbone is not None:
            visual = None if visual is None else np.stack([self.options.turn(crops) for crops in visual])
            self.model.backbone.train(any(p.requires_grad for p in self.model.backbone.parameters()))
        device = next(self.model.parameters()).device
        clips, classes = to(self.model.inputs(features, visual), device), classes.to(device)
        if clips.audio is not None:
            clips = clips._replace(audio=self._disturb(self.options.vary(clips.audio)))
        if visual is not None and visual.ndim == 3:
            clips = clips._replace(visual=self._disturb(clips.visual))
        if self.options.mixup:
            targets = F.one_hot(classes, len(self.model.config.labels)).float()
            clips, classes = mixup(clips, targets, self.options.mixup)
        clips, classes = modality_dropout(clips, classes, self.options.modality_dropout)
        return F.cross_entropy(model(clips)["expression"].float(), classes, label_smoothing=self.options.smoothing)

    def _disturb(self, x: Tensor) -> Tensor:
        return x + self.options.noise * torch.randn_like(x) if self.options.noise else x

    def evaluate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Validation accuracy under the conditions that `select` asks for; their mean is the "score"."""
        if self.valid is None:
            return {"score": 0.0}
        asked = ("both", "audio", "video") if self.options.select == "mean" else ("both",)
        conditions = [c for c in asked if c in self.valid.conditions] or self.valid.conditions[:1]
        accuracy = {c: top(predict(model, self.valid, c), self.valid.classes, 1) for c in conditions}
        return {"score": sum(accuracy.values()) / len(accuracy)} | {f"accuracy_{c}": a for c, a in accuracy.items()}


def to(clips: Clips, device: torch.device) -> Clips:
    """The clips on another device."""
    return Clips(*(None if x is None else x.to(device) for x in clips))


@torch.inference_mode()
def predict(model: AVFusion, data: ClipData, condition: str = "both", seed: int = 0, batch: int = 16) -> Tensor:
    """Logits [N, K] of all clips in order, under one of `CONDITIONS`, in evaluation mode."""
    model.eval()
    generator, parts = torch.Generator().manual_seed(seed), []
    device = next(model.parameters()).device
    for features, visual, _ in data.loader(batch, shuffle=False):
        clips = under(model.inputs(features, visual), condition, generator)
        parts.append(model(to(clips, device))["expression"].float().cpu())
    return torch.cat(parts)


def figures(logits: Tensor, classes: Tensor) -> dict[str, float]:
    """The original's figures (accuracy, top-5 accuracy, mean cross-entropy) and ours, which mind rare classes.

    Args:
        logits: [N, K]; classes: int64 [N].

    Returns:
        "loss"; "accuracy", "top5", "uar" (mean recall over classes) and "f1" (macro) in [0, 1].
    """
    rows = scores(confusion(logits.numpy(), classes.numpy(), logits.shape[1]))
    return {
        "loss": float(F.cross_entropy(logits, classes)),
        "accuracy": top(logits, classes, 1),
        "top5": top(logits, classes, 5),
        "uar": float(rows["balanced_accuracy"]),
        "f1": float(rows["f1"]),
    }


def top(logits: Tensor, classes: Tensor, k: int) -> float:
    """Share of samples whose class is among the k largest logits; k is cut to the number of classes."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return float((best == classes[:, None]).any(dim=1).float().mean())


def interval(logits: Tensor, classes: Tensor, groups: np.ndarray, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of accuracy and UAR, drawing whole groups (actors) with replacement."""
    names = np.unique(groups)
    tables = np.stack(
        [confusion(logits.numpy()[groups == g], classes.numpy()[groups == g], logits.shape[1]) for g in names]
    )
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    rows = scores(np.einsum("dg,gij->dij", draws, tables))
    return {
        name: tuple(float(v) for v in np.percentile(rows[key], (2.5, 97.5)))
        for name, key in (("accuracy", "accuracy"), ("uar", "balanced_accuracy"))
    }


def build(recipe: Recipe, folders: dict[str, Path], init: str | None) -> AVFusionTrainee:
    """The trainee of a fusion recipe.

    Args:
        recipe: its fields beside the usual ones are `model` (the network's config) and those of `Options`.
        folders: of the data sets.
        init: checkpoint to start from: a fusion model of the same shape, whose input and attention heads are taken
            over with its weights, or an EfficientFace as the network's eye.

    Raises:
        UserError: the recipe's fields, its data, or the checkpoint to start from do not fit.
    """
    begin = hub.load(init) if init else None
    config, options = plan(recipe, folders, begin)
    parts = {role: samples(recipe, role, folders) for role in ("train", "valid", "test")}
    if not parts["train"] or not parts["valid"]:
        raise UserError("the recipe needs data for train and valid")
    data = {}
    for role, clips in parts.items():
        train = role == "train"
        if clips:
            faces = lenders(recipe, role, folders, config, options)
            speeds = options.vary.speeds if train else (1.0,)
            data[role] = ClipData(clips, config.input, config.labels, faces, not train, speeds)
    model = fresh(config, options, data["train"], recipe.settings.seed, begin)
    return AVFusionTrainee(model, data["train"], data["valid"], data.get("test"), options)


def plan(recipe: Recipe, folders: dict[str, Path], begin: nn.Module | None = None) -> tuple[AVFusionConfig, Options]:
    """The network's config and the training options that a recipe asks for, going on from `begin`; see `continued`.

    Raises:
        UserError: they do not fit.
    """
    rest = dict(recipe.rest)
    config = hub.build("avfusion", _with_names(rest.pop("model"), folders), where="model").config
    rest["stages"] = [parse(Phase, p, f"stage {k + 1}") for k, p in enumerate(rest.get("stages", ()))]
    for name, cls in (("turn", Turn), ("vary", Vary)):
        rest[name] = parse(cls, rest.get(name, {}), name)
    return continued(config, parse(Options, rest, "recipe"), begin)


def continued(config: AVFusionConfig, options: Options, begin: nn.Module | None) -> tuple[AVFusionConfig, Options]:
    """A fusion network goes on with the input that its weights know, standardisation included, and their heads.

    Raises:
        UserError: the recipe's data give the network something else to see.
    """
    if not isinstance(begin, AVFusion):
        return config, options
    asked, known = (_sight(c.input.visual) for c in (config, begin.config))
    if asked != known:
        raise UserError(f"the checkpoint to start from sees {known}; the recipe's input is {asked}")
    return replace(config, input=begin.config.input, heads=begin.config.heads), replace(options, standardise=False)


def _sight(visual: FaceInput | VectorInput) -> str:
    if isinstance(visual, FaceInput):
        return "face crops"
    return f"the measurements {', '.join(visual.names)}" + (f" of {visual.measured_by}" if visual.measured_by else "")


def lenders(
    recipe: Recipe, role: str, folders: dict[str, Path], config: AVFusionConfig, options: Options
) -> BorrowedFaces | None:
    """Who lends faces to the clips of a role; None where the recipe borrows none."""
    if options.borrow is None:
        return None
    faces, visual = samples(recipe, f"faces_{role}", folders), config.input.visual
    if isinstance(visual, FaceInput):
        return BorrowedFaces(faces, config.labels, visual, options.borrow)
    meter = FaceMeter(visual.measured_by)
    return BorrowedFaces(faces, config.labels, meter.input, options.borrow, meter)


def fresh(config: AVFusionConfig, options: Options, train: ClipData, seed: int, begin: nn.Module | None) -> AVFusion:
    """A network to be trained on `train`, from random weights or from those of `begin`."""
    torch.manual_seed(seed)
    model = AVFusion(replace(config, input=standardised(train)) if options.standardise else config)
    if begin is not None:
        start(model, begin)
    return model


def _with_names(table: dict[str, Any], folders: dict[str, Path]) -> dict[str, Any]:
    """The model's config with the names of the numbers that stand for pictures.

    Its visual input may say `action_units`, those of RAVDESS, or `{measured_by: NAME}`, a model of single faces.
    """
    given = table.get("input", {})
    if isinstance(given.get("visual"), dict) and given["visual"].keys() == {"measured_by"}:
        names = FaceMeter(given["visual"]["measured_by"]).names
        return {**table, "input": {**given, "visual": {"names": names, **given["visual"]}}}
    if given.get("visual") != "action_units":
        return table
    if "ravdess" not in folders:
        raise UserError("this recipe needs RAVDESS: add --data FOLDER")
    names = ravdess.action_units(folders["ravdess"])[0]
    return {**table, "input": {**given, "visual": {"names": names}}}


def start(model: AVFusion, other: nn.Module) -> None:
    """Begin from another checkpoint's weights; class scores start afresh where the expressions differ.

    Raises:
        UserError: neither a fusion model of the same shape nor, for a model that reads faces, an EfficientFace.
    """
    if isinstance(other, EfficientFace) and model.backbone is not None:
        model.backbone.load_state_dict(other.backbone.state_dict())
    elif isinstance(other, AVFusion):
        own = model.state_dict() if other.config.labels != model.config.labels else {}
        heads = {k: v for k, v in own.items() if k.startswith(("fc.", "audio.head.", "visual.head."))}
        hub.fit(model, other.state_dict() | heads, where="the checkpoint to start from")
    else:
        raise UserError("start from a fusion checkpoint, or from an EfficientFace where the model reads faces")


def report(trainee: AVFusionTrainee, recipe: Recipe, command: str) -> tuple[hub.Card, str]:
    """Measure the trained model under every condition; returns what config.json stores and the model card's text."""
    model, measured, lines = trainee.model.cpu(), {}, []
    # figures of the weights as they are stored: half precision
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    for data in (d for d in (trainee.test, trainee.valid) if d is not None):
        part = data.parts[0]
        where = f"{part.dataset}/{part.split}"
        borrow = trainee.options.borrow
        protocol = part.protocol if borrow is None else part.protocol.replace("voice alone", "borrowed faces", 1)
        lines += ["", f"### {where}: {len(data)} clips of {len(set(data.groups))} speakers ({protocol})", ""]
        if borrow is not None:
            lines += [BORROWED.format(instead=_stand_ins(borrow)), ""]
        table, kept = condition_table(model, data, {} if borrow is None else BORROWED_ROWS)
        lines += table
        measured |= {f"{where}/{name}": value for name, value in kept.items()}
    faces = recipe.data.get("faces_train", []) if trainee.options.borrow is not None else []
    trained_on = tuple(dict.fromkeys(p.dataset for p in (*trainee.train.parts, *faces)))
    card = hub.Card(recipe.name, recipe.licence, recipe.commercial, trained_on, measured, "trained by this project")
    return card, figures_of.card_text(card, recipe, model, command, lines, LIMITS, "clip")


def _stand_ins(table: dict[str, str]) -> str:
    return "".join(f"; clips of {label} get {other} faces" for label, other in table.items())


def condition_table(
    model: AVFusion, data: ClipData, names: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], dict[str, float]]:
    """Figures per modality condition, as Markdown lines (rows called as in `names`) and "condition/metric" -> value."""
    lines = ["| input | accuracy | 95 % | UAR | 95 % | macro F1 | top 5 |", "|---" * 7 + "|"]
    kept = {}
    for condition in data.conditions:
        logits = predict(model, data, condition)
        row, spread = figures(logits, data.classes), interval(logits, data.classes, data.groups)
        low, high = ([f"{spread[m][end]:.3f}" for m in ("accuracy", "uar")] for end in (0, 1))
        lines.append(
            f"| {names.get(condition, condition)} | {row['accuracy']:.4f} | {low[0]}-{high[0]} | {row['uar']:.4f} | "
            f"{low[1]}-{high[1]} | {row['f1']:.4f} | {row['top5']:.4f} |"
        )
        kept |= {f"{condition}/{m}": round(row[m], 4) for m in ("accuracy", "uar", "f1")}
    lines += ["", "Intervals: 2,000 draws of whole speakers. Noise is added as mean + deviation of the batch."]
    return lines, kept
