"""EMENet's training: teachers on labelled frames, then students on their ensemble's soft labels, round after round.

Teachers see one batch per task and step, each in a forward pass of its own; students one batch with the soft labels of
all tasks and no ground truth (Deng, Wu, Shi 2021). One stage trains one ensemble member.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from emotion import hub
from emotion.errors import UserError
from emotion.models.emenet import EMENet
from train import calibrate, soft_labels
from train import report as figures_of
from train.augment import Augment
from train.emenet_data import Clips, LongBatches, cutter
from train.emenet_losses import Balance, affect_losses, combine, hard_loss, soft_loss
from train.emenet_start import Helpers, start, taught
from train.fg2020_data import TaskBatches, whole
from train.loop import Schedule, Stage
from train.recipe import Recipe, parse, samples

EPOCHS = {"shortest": TaskBatches, "longest": LongBatches}
AUXILIARY = {"landmarks": ("landmarks_l1", -1), "voice": ("voice_auroc", 1)}  # figure, sign: larger is better


@dataclass(frozen=True)
class Phase:
    """One entry of a recipe's `stages`: the training of one member.

    Attributes:
        member: which one.
        epochs: how many.
        lr: learning rate of everything.
        schedule: learning-rate factor.
        evaluate_every: epochs between validations.
    """

    member: int = 0
    epochs: int = 10
    lr: float = 1e-3
    schedule: Schedule = field(default_factory=lambda: Schedule("step", factor=0.1, every=3))
    evaluate_every: int = 1


@dataclass(frozen=True)
class Options:
    """Fields of a recipe beside data, model, stages and augmentation.

    Attributes:
        batch: clips (or pictures) per task and step.
        epoch: whether a teacher's epoch ends with the "shortest" task (published) or the "longest".
        frames: pictures per clip; 1 for single pictures.
        fps: frames per second of the clips.
        distill: learn from the teacher's soft labels instead of ground truth.
        temperature: of the soft labels.
        affect: loss on valence and arousal, see `affect_losses`.
        expression_weights, action_unit_weights: see `hard_loss`; () for none.
        task_weights: of the tasks' losses against each other (the original's lambdas), 1 where not given; they are
            divided by the sum over all heads.
        balance: raise the weight of tasks whose validation stands still.
        calibrate: tasks whose temperatures are fitted on one random half of validation; all figures are then of the
            other half. Leave out valence and arousal if their bins learnt from a CCC loss: they are no likelihoods.
        frozen_norm: keep the batch norms' statistics, of a pretrained face network: a teacher's batches hold one task's
            pictures, often of one data set, and statistics of such batches fit none when used for all.
        workers: processes that read pictures.
    """

    batch: int = 5
    epoch: str = "shortest"
    frames: int = 1
    fps: int = 30
    distill: bool = False
    temperature: float = 1.0
    affect: str = "ccc"
    expression_weights: tuple[float, ...] = ()
    action_unit_weights: tuple[float, ...] = ()
    task_weights: dict[str, float] = field(default_factory=dict)
    balance: bool = True
    calibrate: tuple[str, ...] = ()
    frozen_norm: bool = False
    workers: int = 0

    def weights(self, task: str) -> tuple[float, ...] | None:
        """Weights of a task's labels, None for none."""
        return {"expression": self.expression_weights, "action_units": self.action_unit_weights}.get(task) or None


@dataclass(frozen=True)
class Faces:
    """A batch on its way through a network: pictures [B, T, C, H, W], sound [B, T, L] or None."""

    x: Tensor
    sound: Tensor | None = None


def teacher_loss(
    forward: Any,
    batches: dict[str, tuple[Faces, Tensor]],
    helpers: Helpers,
    options: Options,
    weights: dict[str, float],
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step on ground truth.

    Args:
        forward: (pictures, sound) -> logits [1, B, T, ...] per task.
        batches: task -> its batch and labels [B * T, K] (rows with NaN do not count).
        helpers, options: auxiliary targets and loss settings.
        weights: per task.

    Returns:
        The loss, and its parts per task.
    """
    losses: dict[str, Tensor] = {}
    auxiliary: dict[str, list[Tensor]] = {}
    for task, (faces, labels) in batches.items():
        z = {t: v[0].flatten(0, 1) for t, v in forward(faces.x, faces.sound).items()}
        known = labels.isfinite().all(dim=1)
        losses[task] = hard_loss(task, z[task][known], labels[known], options.weights(task), options.affect)
        for name, wanted in helpers.targets(faces.x.flatten(0, 1), _flat(faces.sound)).items():
            auxiliary.setdefault(name, []).append(hard_loss(name, z[name], wanted))
    means = {name: torch.stack(values).mean() for name, values in auxiliary.items()}
    return combine(losses, auxiliary, weights), losses | means


def student_loss(
    forward: Any,
    faces: Faces,
    soft: dict[str, Tensor],
    helpers: Helpers,
    options: Options,
    weights: dict[str, float],
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step on the teachers' mean probabilities [B * T, ...] per task; otherwise as `teacher_loss`."""
    z = {t: v[0].flatten(0, 1) for t, v in forward(faces.x, faces.sound).items()}
    losses = {task: soft_loss(task, z[task], p, options.temperature) for task, p in soft.items() if task in z}
    wanted = helpers.targets(faces.x.flatten(0, 1), _flat(faces.sound))
    auxiliary = {name: [hard_loss(name, z[name], target)] for name, target in wanted.items()}
    means = {name: values[0] for name, values in auxiliary.items()}
    return combine(losses, auxiliary, weights), losses | means


def _flat(sound: Tensor | None) -> Tensor | None:
    return None if sound is None else sound.flatten(0, 1)


class EMENetTrainee:
    """A network or ensemble in training, one member per stage; with soft labels its members are students."""

    def __init__(
        self,
        model: EMENet,
        train: Clips,
        valid: Clips,
        phases: list[Phase],
        options: Options,
        augment: Augment,
        helpers: Helpers,
    ) -> None:
        self.model, self.train, self.valid = model, train, valid
        self.phases, self.options, self.augment, self.helpers = phases, options, augment, helpers
        self.tasks = [t for t in soft_labels.EMOTIONS if t in model.config.outputs]
        self.balance = self._start_weights()
        self.taught: dict[str, np.ndarray] | None = None  # see `truth`
        if not all(0 <= p.member < model.config.members for p in phases):
            raise UserError(f"a stage trains a member that the model lacks; it has {model.config.members}")

    def stages(self) -> list[Stage]:
        """One stage per phase."""
        return [
            Stage(
                name=f"member-{phase.member}",
                epochs=phase.epochs,
                groups=[(phase.lr, [*self.model.members[phase.member].parameters()])],
                schedule=phase.schedule,
                evaluate_every=phase.evaluate_every,
                setting=phase,
            )
            for phase in self.phases
        ]

    def begin(self, stage: Stage) -> None:
        """Freeze the other members and weigh the tasks as at first."""
        for index, member in enumerate(self.model.members):
            member.requires_grad_(index == stage.setting.member)
        self.balance = self._start_weights()

    def _start_weights(self) -> Balance:
        tasks, given = tuple(self.model.config.outputs), self.options.task_weights
        if unknown := given.keys() - set(tasks):
            raise UserError(f"task_weights: the model has no {', '.join(sorted(unknown))}; it has {', '.join(tasks)}")
        balance = Balance(tasks, dict(given))
        if min(balance.factors.values()) < 0 or not sum(balance.factors.values()):
            raise UserError("task_weights must not be below 0, nor all 0")
        return balance

    def batches(self, stage: Stage) -> DataLoader:
        """A student's shuffled clips, or a teacher's steps of one batch per task."""
        workers = self.options.workers
        if self.options.distill:
            return DataLoader(
                self.train, self.options.batch, shuffle=True, drop_last=True, num_workers=workers, collate_fn=whole
            )
        pools = {t: pool for t in self.tasks if len(pool := self.train.labelled(t))}
        if missing := [t for t in self.tasks if t not in pools]:
            raise UserError(f"no training clip is labelled for {', '.join(missing)}; take the task out of the model")
        if self.options.epoch not in EPOCHS:
            raise UserError(
                f"epoch: a teacher's ends with the {' or the '.join(EPOCHS)} task, not {self.options.epoch!r}"
            )
        sampler = EPOCHS[self.options.epoch]([*pools.values()], self.options.batch)
        self.sizes = [n * self.options.frames for n in sampler.sizes]
        return DataLoader(self.train, batch_sampler=sampler, num_workers=workers, collate_fn=whole)

    def loss(self, model: nn.Module, batch: Any, stage: Stage) -> Tensor:
        """The teacher's or student's loss of the stage's member."""
        pictures, targets = batch
        self.model.eval()
        member = self.model.members[stage.setting.member].train()
        for module in member.modules():
            if self.options.frozen_norm and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        x = self.model.config.input.normalise(self.augment(pictures, self.options.frames))
        sound = targets.pop("sound", None)

        def forward(x: Tensor, sound: Tensor | None) -> dict[str, Tensor]:
            return model(x, sound, member=stage.setting.member)

        weights, shape = self.balance.weights, (-1, self.options.frames)
        if self.options.distill:
            soft = {t.removeprefix("soft."): p for t, p in targets.items() if t.startswith("soft.")}
            faces = Faces(x.unflatten(0, shape), None if sound is None else sound.unflatten(0, shape))
            return student_loss(forward, faces, soft, self.helpers, self.options, weights)[0]
        parts = x.split(self.sizes)
        sounds = [None] * len(parts) if sound is None else [s.unflatten(0, shape) for s in sound.split(self.sizes)]
        batches = {
            task: (Faces(part.unflatten(0, shape), heard), targets[task].split(self.sizes)[i])
            for i, (task, part, heard) in enumerate(zip(self.tasks, parts, sounds))
        }
        return teacher_loss(forward, batches, self.helpers, self.options, weights)[0]

    def evaluate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Figures of the stage's member alone; the score is the sum of the tasks' totals."""
        logits = soft_labels.collect(model, self.valid, stage.setting.member)
        found = calibrate.figures(model.decode(logits), self.truth(next(model.parameters()).device))
        self._weigh(found)
        return found | {f"weight_{t}": w for t, w in self.balance.weights.items()}

    def truth(self, device: torch.device) -> dict[str, np.ndarray]:
        """Labels of the validation pictures, and what the auxiliary heads' teachers say of them; computed once."""
        if self.taught is None:
            self.taught = self.helpers.truth(self.valid, device)
        return soft_labels.truth(self.valid) | self.taught

    def resume(self, rows: list[dict[str, float]]) -> None:
        """Weigh the tasks as the finished epochs of this stage did."""
        for row in rows:
            self._weigh(row)

    def _weigh(self, figures: dict[str, float]) -> None:
        totals = {t: figures[f"{t}_total"] for t in self.tasks if f"{t}_total" in figures}
        totals |= {t: sign * figures[name] for t, (name, sign) in AUXILIARY.items() if name in figures}
        if self.options.balance:
            self.balance.update(totals)


def build(
    recipe: Recipe, folders: dict[str, Path], init: str | None, teacher: str | EMENet | None = None
) -> EMENetTrainee:
    """The trainee of an EMENet recipe.

    Args:
        recipe: its fields beside data and settings: `model` (of `EMENetConfig`), `stages`, `augment`, `sound` (folder
            of extracted sound below the data set's, for models that hear), and those of `Options`.
        folders: of the data sets.
        init: checkpoints to start from, separated by commas: a MobileFaceNet (start of every member's face network,
            and the teacher of the landmark head), a MarbleNet (the same for sound), an EMENet (its first member's
            trunks start all members).
        teacher: whom students (`distill: true`) learn from, see `emenet_start.taught`.

    Raises:
        UserError: fields, data or files that do not fit.
    """
    rest = dict(recipe.rest)
    torch.manual_seed(recipe.settings.seed)
    model: EMENet = hub.build("emenet", rest.pop("model"), where="model")
    phases = [parse(Phase, p, f"stage {k + 1}") for k, p in enumerate(rest.pop("stages"))]
    augment = parse(Augment, rest.pop("augment", {}), "augment")
    folder = rest.pop("sound", None)
    options = parse(Options, rest, "recipe")
    affect_losses(options.affect)  # what cannot be done is said now
    for task in ("expression", "action_units"):
        if (weights := options.weights(task)) and len(weights) != model.config.outputs.get(task):
            raise UserError(f"{len(weights)} weights for the labels of {task}; the model has {model.labels.get(task)}")
    given = [hub.load(s) for s in (init or "").split(",") if s]
    if options.distill and teacher is None:
        raise UserError("students need one teacher: add --teacher CHECKPOINT (the recipe emenet-teacher trains it)")
    helpers = start(model, given)
    parts = {role: samples(recipe, role, folders) for role in ("train", "valid")}
    cut = cutter(model.config, parts["train"], folders, folder)
    labels = {t: names for t, names in model.labels.items() if t in soft_labels.EMOTIONS}
    train, valid = (
        Clips(parts[role], model.config.input, labels, options.frames, options.fps, cut) for role in ("train", "valid")
    )
    if options.distill:
        train.soft = taught(teacher, train)
    return EMENetTrainee(model, train, valid, phases, options, augment, helpers)


def report(trainee: EMENetTrainee, recipe: Recipe, command: str) -> tuple[hub.Card, str]:
    """Calibrate if wanted, measure members and ensemble on validation; returns the card and the model card's text."""
    model = trainee.model.cpu()
    if model.config.time_axis == "clips":  # training alone runs across clips
        model.with_time_axis("lanes")
    # figures of the weights as they are stored: half precision
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    logits, truth = soft_labels.collect(model, trainee.valid), trainee.truth(torch.device("cpu"))
    where = ", ".join(dict.fromkeys(f"{p.dataset}/{p.split}" for p in trainee.valid.parts))
    lines: list[str] = []
    if chosen := trainee.options.calibrate:
        first, second = calibrate.halves(len(trainee.valid.ids))
        before = model.decode(rows(logits, second))
        temperature = calibrate.fit(rows(logits, first), {t: y[first] for t, y in truth.items() if t in chosen})
        model.config = replace(model.config, temperature=temperature)
        logits, truth = rows(logits, second), {t: y[second] for t, y in truth.items()}
        lines += [
            "",
            "Temperatures were fitted on one half of validation; figures are of the other half. Without them:",
        ]
        uncalibrated = calibrate.figures(before, truth)
        lines += [", ".join(f"{k} {v:.4f}" for k, v in uncalibrated.items() if k.endswith(("_nll", "_ece")))]
    ensemble = calibrate.figures(model.decode(logits), truth)
    single = [
        calibrate.figures(model.decode({t: z[m : m + 1] for t, z in logits.items()}), truth)
        for m in range(model.config.members)
    ]
    faces = next(iter(logits.values())).shape[1]
    table = ["", f"### {where} ({faces} faces)", "", "| figure | ensemble | mean of members |", "|---|---|---|"]
    table += [
        f"| {k.replace('_', ' ')} | {v:.4f} | {np.mean([s[k] for s in single]):.4f} |" for k, v in ensemble.items()
    ]
    card = hub.Card(
        name=recipe.name,
        licence=recipe.licence,
        commercial=recipe.commercial,
        trained_on=tuple(dict.fromkeys(p.dataset for p in trainee.train.parts)),
        metrics=_by_data(ensemble, trainee),
        source="trained by this project",
    )
    return card, figures_of.card_text(card, recipe, model, command, table + lines)


def _by_data(figures: dict[str, float], trainee: EMENetTrainee) -> dict[str, float]:
    """A card's metrics: every task's figures under the validation sets that have labels of the task."""
    out = {}
    for name, value in figures.items():
        task = "valence_arousal" if name.startswith(("ccc_", "rmse_")) else name.rpartition("_")[0]
        where = [f"{p.dataset}/{p.split}" for p in trainee.valid.parts if task in p.targets]
        if where and not name.endswith("_total"):
            out[f"{'+'.join(dict.fromkeys(where))}/{name}"] = round(value, 4)
    return out


def rows(logits: dict[str, Tensor], index: np.ndarray) -> dict[str, Tensor]:
    """Some faces of logits [M, N, ...]."""
    return {task: z[:, torch.as_tensor(index)] for task, z in logits.items()}
