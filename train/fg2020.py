"""FG-2020's training: a teacher on partial labels, students distilled from it, and the CNN-RNN on frozen features.

Every step reads one batch per task, each in a forward pass of its own, so that batch norm sees one data set at a time
(Deng, Chen, Shi 2020); `mixed` puts everything into one pass instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from emotion import hub, merging
from emotion.datasets import Samples
from emotion.errors import UserError
from emotion.importers.fg2020 import backbone_tensors
from emotion.models.fg2020 import FG2020, fg2020
from emotion.outputs import Task
from eval.metrics.action_units import action_units_core
from eval.metrics.ccc.ccc_core import ccc
from eval.metrics.expression import expression_core
from train import fg2020_losses as losses
from train import report as figures_of
from train import sampling
from train.fg2020_data import TaskBatches, Units, whole
from train.loop import Schedule, Stage
from train.recipe import Recipe, parse, samples


@dataclass(frozen=True)
class Phase:
    """One entry of a recipe's `stages`: the training of one member.

    Attributes:
        member: which one.
        epochs: how many; an epoch ends with the shortest task.
        lr: learning rate of everything that learns.
        schedule: learning-rate factor (the authors' rate stays constant).
        evaluate_every: epochs between validations.
    """

    member: int = 0
    epochs: int = 8
    lr: float = 1e-4
    schedule: Schedule = field(default_factory=Schedule)
    evaluate_every: int = 1


@dataclass(frozen=True)
class Options:
    """Fields of a recipe beside data, model and stages.

    Attributes:
        batch: images (or windows) per task and step.
        mixed: one forward pass for all tasks of a step instead of one each.
        balance: draw images by the weights of `train.sampling`; default: all once per epoch.
        frozen: the CNN of a CNN-RNN does not learn, and stays in evaluation mode.
        crops: "free" (place and mirroring drawn per image or clip) or "once" (one draw for the whole training, as the
            original did by accident).
        weights: of the losses.
        workers: processes that read pictures.
    """

    batch: int = 20
    mixed: bool = False
    balance: bool = False
    frozen: bool = False
    crops: str = "free"
    weights: losses.Weights = field(default_factory=losses.Weights)
    workers: int = 0


class FG2020Trainee:
    """A network or ensemble in training, one member per stage; with a teacher its members are students.

    `precision` is that of the teacher's forward passes, see `train.loop.Settings`.
    """

    def __init__(
        self,
        model: FG2020,
        train: list[Samples],
        valid: list[Samples],
        phases: list[Phase],
        options: Options,
        teacher: FG2020 | None = None,
        precision: str = "no",
    ) -> None:
        self.model, self.phases, self.options, self.precision = model, phases, options, precision
        self.teacher = teacher.eval().requires_grad_(False) if teacher else None
        self.parts, length = train, model.config.frames
        self.train = Units(train, model.config.input, model.labels, length, overlap=True, crops=options.crops)
        self.valid = Units(valid, model.config.input, model.labels, length)
        if not all(0 <= p.member < len(model.config.members) for p in phases):
            raise UserError(f"a stage trains a member that the model lacks; it has {len(model.config.members)}")
        if options.frozen and not length:
            raise UserError("frozen: true is for models with frames; a CNN alone has nothing else to train")

    def stages(self) -> list[Stage]:
        """One stage per phase."""
        return [
            Stage(
                name=self.model.config.members[phase.member],
                epochs=phase.epochs,
                groups=[(phase.lr, [p for module in self._learning(phase) for p in module.parameters()])],
                schedule=phase.schedule,
                evaluate_every=phase.evaluate_every,
                setting=phase,
            )
            for phase in self.phases
        ]

    def _learning(self, phase: Phase) -> list[nn.Module]:
        """The member's modules that learn."""
        cnns, temporal = self.model.cnns, self.model.temporal
        out = [temporal[phase.member]] if len(temporal) else []
        return out if self.options.frozen else [*out, cnns[0 if self.model.config.shared_cnn else phase.member]]

    def begin(self, stage: Stage) -> None:
        """Freeze the other members."""
        learning = {id(p) for _, group in stage.groups for p in group}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in learning)

    def batches(self, stage: Stage) -> DataLoader:
        """Steps of one batch per task."""
        tasks = [t for t in self.model.config.tasks if len(self.train.labelled(t))]
        if not tasks:
            raise UserError("no training sample has a label of any task of the model")
        pools = [self.train.labelled(t) for t in tasks]
        weights = [self._weights(t, pool) for t, pool in zip(tasks, pools)] if self.options.balance else None
        self.batch_sampler = TaskBatches(pools, self.options.batch, weights)
        workers = self.options.workers
        return DataLoader(self.train, batch_sampler=self.batch_sampler, num_workers=workers, collate_fn=whole)

    def _weights(self, task: str, pool: np.ndarray) -> np.ndarray:
        if self.model.config.frames:
            raise UserError("balance: true is for single images; windows of frames mix classes")
        targets = self.train.targets[task][torch.as_tensor(self.train.units[pool, 0])].numpy()
        if task == "expression":
            return sampling.class_weights(targets.argmax(axis=1))
        rule = sampling.grid_weights if task == "valence_arousal" else sampling.multilabel_weights
        return rule(targets)

    def loss(self, model: nn.Module, batch: Any, stage: Stage) -> Tensor:
        """Sum over the tasks' batches of the teacher's losses, or the students' mean over them."""
        faces, targets = batch
        self.model.eval()
        for module in self._learning(stage.setting):
            module.train()
        length = self.model.config.frames
        x = self.model.config.input.normalise(faces.float())
        sizes = [len(x)] if self.options.mixed else [n * max(length, 1) for n in self.batch_sampler.sizes]
        rows = {t: y.split(sizes) for t, y in targets.items()}
        parts = []
        for i, images in enumerate(x.split(sizes)):
            y = {t: chunks[i] for t, chunks in rows.items()}
            images = images.unflatten(0, (-1, length)) if length else images
            logits = {t: z[0] for t, z in model(images, member=stage.setting.member).items()}
            parts.append(self._batch_loss(logits, images, y))
        return torch.stack(parts).sum() if self.teacher is None else torch.stack(parts).mean()

    def _batch_loss(self, logits: dict[str, Tensor], images: Tensor, y: dict[str, Tensor]) -> Tensor:
        if self.teacher is None:
            return losses.teacher_loss(logits, y, self.options.weights)
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.no_grad(), torch.autocast(images.device.type, dtype, enabled=self.precision != "no"):
            soft = {t: z.mean(0) for t, z in self.teacher.to(images.device)(images).items() if t in logits}
        return sum(losses.student_losses(logits, soft, y, self.options.weights).values())

    def evaluate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Figures of the stage's member alone; the score is the sum of the tasks' totals."""
        tasks = self.model.decode(predict(model, self.valid, stage.setting.member), "single")
        return figures(tasks, self.valid.truth())


def figures(tasks: dict[str, Task], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """What the challenge measures, per task with labels, and "score": expression total + AU total + both CCC.

    Args:
        tasks: decoded predictions of N faces.
        truth: targets [N, K], NaN where unlabelled.
    """
    out = {}
    if "expression" in truth:
        y = truth["expression"]
        classes = np.where(np.isfinite(y).all(axis=1), np.nan_to_num(y).argmax(axis=1), -1)
        got = expression_core.scores(expression_core.confusion(tasks["expression"].choice, classes, y.shape[1]))
        out |= {f"expression_{k}": float(got[k]) for k in ("f1", "accuracy", "total")}
    if "action_units" in truth:
        units = tasks["action_units"]
        cells = action_units_core.counts(units.values >= units.thresholds, truth["action_units"])
        got = action_units_core.scores(cells)
        out |= {f"action_units_{k}": float(got[k]) for k in ("f1", "accuracy", "total")}
    if "valence_arousal" in truth:
        pairs = zip(tasks["valence_arousal"].values.T, truth["valence_arousal"].T)
        out |= {f"ccc_{name}": ccc(p, y) for name, (p, y) in zip(("valence", "arousal"), pairs)}
    return {"score": sum(v for k, v in out.items() if k.endswith("_total") or k.startswith("ccc_")), **out}


@torch.inference_mode()
def predict(model: nn.Module, data: Units, member: int | None = None, batch: int = 64) -> dict[str, Tensor]:
    """Logits of all members (or one) for every picture of `data`, in order, on the CPU: [M, N, ...].

    A CNN-RNN reads the frames of every video as `FG2020.sequence` does.
    """
    model.eval()
    device = next(model.parameters()).device
    parts = []
    films = data.videos() if data.length else [data.order[i : i + batch] for i in range(0, len(data.order), batch)]
    for indices in films:
        chunks = [indices[i : i + batch] for i in range(0, len(indices), batch)]
        images = (data.spec.tensor([data.source(i) for i in chunk]).to(device) for chunk in chunks)
        embeddings = torch.cat([model.embed(x, member) for x in images], dim=1)
        parts.append({t: z.float().cpu() for t, z in model.sequence(embeddings, member).items()})
    return {t: torch.cat([p[t] for p in parts], dim=1) for t in parts[0]}


def build(recipe: Recipe, folders: dict[str, Path], init: str | None, teacher: str | None = None) -> FG2020Trainee:
    """The trainee of an FG-2020 recipe.

    Args:
        recipe: its fields beside data and settings: `model` (arguments of `models.fg2020.fg2020`), `stages`, and those
            of `Options`; `distill: true` makes the members students.
        folders: of the data sets.
        init: what to start from, separated by commas: a pretrained face network (`resnet50_ferplus_dag.pth`) for
            every CNN, or a checkpoint whose CNNs are taken over.
        teacher: checkpoint that students learn from.

    Raises:
        UserError: fields, data or files that do not fit.
    """
    rest = dict(recipe.rest)
    torch.manual_seed(recipe.settings.seed)
    table = dict(rest.pop("model"))
    changes = {k: table.pop(k) for k in ("shared_cnn", "embedding", "bins") if k in table}
    table["members"] = tuple(table.get("members", ("teacher",)))
    model = FG2020(replace(fg2020(**table), **changes))
    phases = [parse(Phase, p, f"stage {k + 1}") for k, p in enumerate(rest.pop("stages"))]
    distill = rest.pop("distill", False)
    options = parse(Options, rest, "recipe")
    starts = [s for s in (init or "").split(",") if s]
    for file in (s for s in starts if s.endswith(".pth")):
        _start_backbones(model, Path(file))
    checkpoints = [hub.load(s) for s in starts if not s.endswith(".pth")]
    if distill and not teacher:
        raise UserError("students need one teacher: add --teacher CHECKPOINT (train it with the recipe fg2020-teacher)")
    for other in checkpoints:
        _start_cnns(model, other)
    guide = hub.load(teacher) if distill else None
    if guide and not isinstance(guide, FG2020):
        raise UserError(f"FG-2020's students learn from an FG-2020 network, not from {type(guide).__name__}")
    return FG2020Trainee(
        model=model,
        train=samples(recipe, "train", folders),
        valid=samples(recipe, "valid", folders),
        phases=phases,
        options=options,
        teacher=guide,
        precision=recipe.settings.precision,
    )


def _start_backbones(model: FG2020, file: Path) -> None:
    variant, tensors = backbone_tensors(file)
    if variant != model.config.backbone:
        raise UserError(f"{file} is the {variant} network, the recipe wants {model.config.backbone}")
    for cnn in model.cnns:
        hub.fit(cnn.backbone, tensors, where=file)


def _start_cnns(model: FG2020, other: nn.Module) -> None:
    """Take over another checkpoint's CNNs: one for all members, or one each."""
    theirs = getattr(other, "cnns", ())
    if len(theirs) not in (1, len(model.cnns)):
        raise UserError(f"cannot start {len(model.cnns)} networks from {len(theirs)}; use an FG-2020 checkpoint")
    for i, cnn in enumerate(model.cnns):
        given = theirs[min(i, len(theirs) - 1)].state_dict()
        wanted = cnn.state_dict()
        bad = [k for k, v in wanted.items() if k not in given or given[k].shape != v.shape]
        if bad:
            raise UserError(f"cannot start from this checkpoint: {len(bad)} tensors differ, e.g. {bad[0]}")
        cnn.load_state_dict({k: given[k] for k in wanted})


def tune(model: FG2020, data: Units, logits: dict[str, Tensor] | None = None) -> None:
    """Set the thresholds of the members' merged action units by `merging.search_thresholds`.

    Args:
        model: its `config` is replaced.
        data: labelled pictures.
        logits: what `predict` gives for them, if known already.
    """
    units = model.decode(predict(model, data) if logits is None else logits)["action_units"]
    found = merging.search_thresholds(units.values, data.truth()["action_units"]).astype(np.float32)
    for _ in range(2):  # scores from the threshold on are positive here, above it in the model
        found = np.nextafter(found, np.float32(0))
    model.config = replace(model.config, thresholds=tuple(map(float, found)))


def report(trainee: FG2020Trainee, recipe: Recipe, command: str) -> tuple[hub.Card, str]:
    """Tune an ensemble's thresholds on validation, measure it; returns the card and the model card's text."""
    model, lines = trainee.model.cpu(), []
    # figures of the weights as they are stored: half precision
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    logits, truth = predict(model, trainee.valid), trainee.valid.truth()
    if len(model.config.members) > 1 and "action_units" in truth:
        tune(model, trainee.valid, logits)
    measured = figures(model.decode(logits), truth)
    where = ", ".join(dict.fromkeys(f"{p.dataset}/{p.split}" for p in trainee.valid.parts))
    lines += ["", f"### {where} ({len(trainee.valid.order)} faces)", ""]
    lines += [f"- {name.replace('_', ' ')}: {value:.4f}" for name, value in measured.items()]
    if len(model.config.members) > 1:
        lines += ["", "Action unit thresholds were tuned on these same faces; their figures are therefore optimistic."]
    card = hub.Card(
        name=recipe.name,
        licence=recipe.licence,
        commercial=recipe.commercial,
        trained_on=tuple(dict.fromkeys(p.dataset for p in trainee.parts)),
        metrics={f"{where}/{k}": round(v, 4) for k, v in measured.items()},
        source="trained by this project",
    )
    return card, figures_of.card_text(card, recipe, model, command, lines)
