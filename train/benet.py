"""BENet's training: several heads on scenes, one drawn head per sample, selection on fixed validation scenes.

Published configurations train with Adam at a constant 0.001 for 250 epochs from COCO-pose weights. Validation here
reads the annotated centres of unvaried pictures, where the original's was random.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.utils.data import DataLoader

from emotion import hub
from emotion.datasets import Samples
from emotion.datasets.scenes import Scenes
from emotion.errors import UserError
from emotion.importers import benet as originals
from emotion.models.benet import BENet, benet, benet_small
from emotion.predict import FacePredictor
from train import benet_losses as losses
from train import report as figures_of
from train import weak_labels
from train.benet_augment import Variation
from train.benet_data import Annotated, SceneData, Source
from train.benet_judge import SYNTHETIC, calibrate, judge
from train.compose import EXCITED, LABELS, PLEASED, Arrangement, Composer, frozen
from train.loop import Schedule, Stage
from train.recipe import Recipe, parse, samples

OF_PEOPLE = ("heatmap", "size")  # how the names of detection's losses begin
PRIOR = -3.0  # the logit of 0.05
PRESETS = {"benet": benet, "small": benet_small}
How = TypeVar("How", Variation, Arrangement)

# What a model card says about the training data.
ANNOTATED = "EMOTIC's emotions are what a few annotators read into strangers' pictures; they agree only in part."
COMPOSED = (
    "Emotions were learnt from faces of known expression pasted on figures, and from what the face model "
    "`{weak}` reads in faces of real pictures (only where its most likely class has at least "
    f"{weak_labels.CONFIDENT:.0%}): weak labels with that model's errors, which also gave grey faces their valence and "
    "arousal. Anger, Fear, Happiness, Sadness and Surprise are the expressions of those names, Aversion is disgust, "
    f"Pleasure a valence of at least {PLEASED}, Excitement such a valence with an arousal of at least {EXCITED} (both "
    "in [-1, 1]; the maps of valence and arousal are in [0, 1]). EMOTIC's other categories have no training signal "
    "here and are absent, as is dominance: for all 26 import the published weights, `python -m emotion import benet`. "
    "Figures called composed are of held-back figures, backgrounds and faces."
)


@dataclass(frozen=True)
class Phase:
    """One entry of a recipe's `stages`: epochs at a learning rate, and how often to validate.

    `side` of crops in pixels, `compose` and `variation` change what the recipe says for all stages.
    """

    epochs: int
    lr: float
    evaluate_every: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    side: int | None = None
    compose: dict[str, Any] = field(default_factory=dict)
    variation: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """Fields of a recipe beside data and settings.

    Attributes:
        model: fields of `BENetConfig`, or a `preset` and its arguments.
        heads: head, or "det+bu" for both on one picture -> probability that a sample is for it.
        stages: fields of `Phase`, one after the other.
        batch: pictures per step.
        workers: processes that read pictures.
        emotion_weight: see `BENetTrainee`.
        repeat: how often an epoch sees every annotated person.
        side: of crops in pixels; default the model's input size.
        weak, compose, variation, aim: fields of `Weak`, `Arrangement` (and how many scenes: `length` for training,
            `valid` for validation), `Variation` and `benet_losses.Aim`.
    """

    model: dict[str, Any]
    heads: dict[str, NonNegativeFloat]
    stages: list[dict[str, Any]]
    batch: PositiveInt = 24
    workers: NonNegativeInt = 0
    emotion_weight: float = 1.0
    repeat: PositiveInt = 1
    side: PositiveInt | None = None
    weak: dict[str, Any] | None = None
    compose: dict[str, Any] | None = None
    variation: dict[str, Any] = field(default_factory=dict)
    aim: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weak:
    """A recipe's `weak`: the face model that labels what nobody annotated, and how many faces per expression of sets
    without valence and arousal it reads."""

    model: str
    per_expression: int = 500


class BENetTrainee:
    """A BENet in training.

    Args:
        model: the network.
        train: varied samples.
        valid: scenes with labels (judged by emotion mAP), with boxes only (by detection AP), or both.
        phases: stages.
        batch, workers: of the loader.
        emotion_weight: factor on the losses of emotions and affect; from scratch those of people drown them.
    """

    def __init__(
        self,
        model: BENet,
        train: SceneData,
        valid: list[Scenes],
        phases: list[Phase],
        batch: int = 24,
        workers: int = 0,
        emotion_weight: float = 1.0,
    ) -> None:
        self.model, self.train, self.valid, self.phases = model, train, valid, phases
        self.batch, self.workers, self.side, self.how = batch, workers, train.side, train.how
        self.composers = [(s, s.how) for s in train.sources if isinstance(s, Composer)]
        self.emotion_weight = emotion_weight

    def stages(self) -> list[Stage]:
        """One stage per phase, all parameters at one rate."""
        return [
            Stage(f"stage-{k + 1}", p.epochs, [(p.lr, list(self.model.parameters()))], p.schedule, p.evaluate_every, p)
            for k, p in enumerate(self.phases)
        ]

    def begin(self, stage: Stage) -> None:
        """The stage's crops and composed scenes."""
        phase: Phase = stage.setting
        self.train.side, self.train.how = phase.side or self.side, changed(self.how, phase.variation, stage.name)
        for composer, how in self.composers:
            composer.how = changed(how, phase.compose, stage.name)

    def batches(self, stage: Stage) -> DataLoader:
        """Shuffled batches, heads drawn per sample."""
        return self.train.loader(self.batch, self.workers)

    def loss(self, model: nn.Module, batch: dict[str, Any], stage: Stage) -> Tensor:
        """Sum of the parts that the batch's pictures give."""
        model.train()
        outputs = model(batch["images"], batch["routes"])
        # a batch may lack a head, or any target; then its outputs, and for several processes all weights, still count
        reached = self.model.parameters() if torch.distributed.is_initialized() else outputs.values()
        nothing = 0 * sum(value.sum() for value in reached)
        parts = losses.parts(self.model, outputs, batch, relative=self.train.aim.relative)
        return nothing + sum(v * (1 if k.startswith(OF_PEOPLE) else self.emotion_weight) for k, v in parts.items())

    def evaluate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Figures of all validation sets; "score" is the mean of mAP and AP, as far as there are."""
        model.eval()
        out = {f"{data.dataset}_{k}": v for data in self.valid for k, v in judge(model, data).items()}
        scored = [v for k, v in out.items() if k.endswith(("_mAP", "_AP"))]
        if not scored:
            raise UserError("nothing to select a model by: the validation data hold neither people nor emotions")
        return {"score": float(np.mean(scored)), **out}


def changed(how: How, changes: dict[str, Any], where: str) -> How:
    """A dataclass object with other values.

    Raises:
        UserError: a field is unknown or of the wrong type.
    """
    return parse(type(how), vars(how) | changes, where)


def build(recipe: Recipe, folders: dict[str, Path], init: str | None) -> BENetTrainee:
    """The trainee of a recipe; `init` is a checkpoint to start from, or an HRNet backbone file (.pth).

    Raises:
        UserError: the recipe's fields, its data, or what to start from do not fit.
    """
    options = parse(Options, recipe.rest, "recipe")
    phases = [parse(Phase, p, f"stage {k + 1}") for k, p in enumerate(options.stages)]
    if not phases:
        raise UserError("stages: a recipe needs at least one")
    torch.manual_seed(recipe.settings.seed)
    model = BENet(_config(options.model))
    _check_heads(options.heads, model)
    initialise(model, scratch=not (init and Path(init).is_file()))
    if init:
        start(model, init)
    weak = parse(Weak, options.weak, "weak") if options.weak is not None else None
    reader = FacePredictor(weak.model) if weak else None
    sources: list[Source] = []
    for data in samples(recipe, "train", folders):
        data = data if data.vocabulary or not reader else weak_labels.of_people(data, reader)
        second, det = _second(model, data), "det" in model.config.heads
        sources += [Annotated(data, second, detection=det, calm=reader is not None)] * options.repeat
    valid = samples(recipe, "valid", folders)
    if options.compose is not None:
        composed, judged = _composed(recipe, folders, options, model, weak, reader)
        sources.append(composed)
        valid += judged
    if not any(len(source) for source in sources):
        raise UserError("the training data hold nothing that the model's heads could learn from")
    how, aim = parse(Variation, options.variation, "variation"), parse(losses.Aim, options.aim, "aim")
    data = SceneData(sources, model.config, options.heads, how, side=options.side, aim=aim)
    trainee = BENetTrainee(model, data, valid, phases, options.batch, options.workers, options.emotion_weight)
    for stage in trainee.stages():  # what cannot be done is said now
        trainee.begin(stage)
    return trainee


def _check_heads(weights: dict[str, float], model: BENet) -> None:
    there = [h for h in model.config.heads if h != "fusion"]  # which is computed from the others' answers
    known = [*there, "det+bu"] if "det" in there else there
    if unknown := [h for h in weights if h not in known]:
        raise UserError(f"heads: the model cannot train {', '.join(unknown)}; it has {', '.join(known)}")
    if not sum(weights.values()) > 0:
        raise UserError(f"heads: at least one of {', '.join(known)} needs a probability above 0")


def _config(table: dict[str, Any]) -> Any:
    table = dict(table)
    preset = table.pop("preset", None)
    if preset is None:
        return hub.build("benet", table, where="model").config
    if preset not in PRESETS:
        raise UserError(f"model: unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    try:
        return PRESETS[preset](**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"model: {error}") from error


def _second(model: BENet, data: Scenes) -> bool:
    """Whether a data set's labels are of the model's second vocabulary."""
    if data.vocabulary in ((), model.config.labels):
        return False
    if data.vocabulary == model.config.extra:
        return True
    raise UserError(f"{data.dataset}'s emotions are neither the model's own nor its extra ones")


def _composed(
    recipe: Recipe,
    folders: dict[str, Path],
    options: Options,
    model: BENet,
    weak: Weak | None,
    reader: FacePredictor | None,
) -> tuple[Composer, list[Scenes]]:
    """The composer of training scenes, and fixed scenes from held-back figures and faces: of people, of portraits."""
    if model.config.labels != LABELS:
        raise UserError(f"composed scenes have the emotions {', '.join(LABELS)}; the model's must be the same")
    table = dict(options.compose or {})
    if missing := [k for k in ("length", "valid") if not isinstance(table.get(k), int)]:
        raise UserError(f"compose: {' and '.join(missing)} must say how many scenes to make")
    count, length = table.pop("valid"), table.pop("length")
    how = parse(Arrangement, table, "compose")
    made = []
    for end in ("", "_valid"):
        (figures,) = samples(recipe, f"figures{end}", folders)
        faces = samples(recipe, f"faces{end}", folders)
        if reader:
            figures = weak_labels.of_people(figures, reader)
            faces = [
                f if "valence_arousal" in f.targets else _read_affect(f, weak.per_expression, reader) for f in faces
            ]
        made.append(Composer(figures, samples(recipe, f"backgrounds{end}", folders), faces, length, how))
    held_back = {"composed": made[1].arranged(portraits=0.0)}
    if any(p.get("compose", {}).get("portraits", how.portraits) for p in options.stages):
        held_back["portraits"] = made[1].arranged(portraits=1.0)
    return made[0], [frozen(c, count, recipe.settings.seed, name) for name, c in held_back.items()]


def _read_affect(faces: Samples, limit: int, reader: FacePredictor) -> Samples:
    """The first `limit` faces of every expression with the valence and arousal read in them."""
    classes = faces.classes()
    kept = np.sort(np.concatenate([np.flatnonzero(classes == k)[:limit] for k in np.unique(classes)]))
    return weak_labels.with_affect(faces.subset(kept), reader)


def initialise(model: BENet, scratch: bool = False) -> None:
    """Start values.

    Around a pretrained backbone file the original has kernels normal with deviation 0.001, biases 0 and linear layers
    as PyTorch has them. Otherwise He's deviation (2015), and probabilities that start low (Lin et al., ICCV 2017).
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.001)
            if scratch:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if not scratch:
        return
    starts = [(model.bu, len(model.config.labels))] + ([(model.heatmap, 1)] if "det" in model.config.heads else [])
    for last, probabilities in ((part[-1][-1], n) for head, n in starts for part in (head.low, head.high)):
        # not tiny: all weights would turn negative against the many empty cells, and the ReLU before them die
        nn.init.kaiming_normal_(last.weight)
        nn.init.constant_(last.bias[:probabilities], PRIOR)


def start(model: BENet, init: str) -> None:
    """Begin from an HRNet backbone file, or from another BENet: its backbone, and of its heads what fits.

    Raises:
        UserError: no BENet, or its backbone differs.
    """
    wanted = model.state_dict()
    if Path(init).is_file():
        given, _ = originals.backbone(init, wanted)
    else:
        state = hub.load(init).state_dict()
        given = {k: v for k, v in state.items() if k in wanted and v.shape == wanted[k].shape}
        differ = [k for k in wanted if k.startswith("backbone.") and k not in given]
        if differ:
            raise UserError(f"cannot start from {init}: {len(differ)} tensors of its backbone differ, e.g. {differ[0]}")
    model.load_state_dict(given, strict=False)


def report(trainee: BENetTrainee, recipe: Recipe, command: str) -> tuple[hub.Card, str]:
    """Calibrate and measure the trained model on validation; what config.json stores and the model card's text."""
    model = trainee.model.cpu().eval()
    # figures of the weights as they are stored: half precision
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    calibrate(model, trainee.valid)
    figures, lines = {}, []
    for data in trainee.valid:
        measured = judge(model, data)
        where = f"{data.dataset}/{data.split}"
        figures |= {f"{where}/{k}": round(v, 4) for k, v in measured.items()}
        lines += ["", f"### {where} ({len(data)} pictures)", ""]
        lines += [", ".join(f"{k} {v:.3f}" for k, v in measured.items())]
    trained_on = tuple(
        dict.fromkeys(s.dataset for role, rows in recipe.data.items() if "valid" not in role for s in rows)
    )
    card = hub.Card(recipe.name, recipe.licence, recipe.commercial, trained_on, figures, "trained by this project")
    limits = ANNOTATED
    if any(d.dataset in SYNTHETIC for d in trainee.valid):
        limits = COMPOSED.format(weak=recipe.rest.get("weak", {}).get("model", "none"))
    return card, figures_of.card_text(card, recipe, model, command, lines, limits, unit="picture")
