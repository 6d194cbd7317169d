"""ESR's losses and stages (specification: Siqueira et al. 2020, equation 1 and algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from emotion import hub
from emotion.datasets import Samples
from emotion.datasets.affectnet import quadrants
from emotion.errors import UserError
from emotion.models import esr
from emotion.models.esr import ESR
from eval.metrics.calibration import calibration_core as core
from train import calibrate
from train import report as figures_of
from train.augment import Augment, mixup
from train.data import FaceData, balance, loader
from train.loop import Schedule, Stage
from train.recipe import Recipe, parse, samples


def branch_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every branch against class distributions, mean over the batch.

    Args:
        logits: [B, N, K]; targets: [N, K], rows sum to 1 (one-hot for single labels).

    Returns:
        [B]; the training loss is their sum (equation 1).
    """
    return -(targets * logits.float().log_softmax(-1)).sum(-1).mean(-1)


def affect_losses(values: Tensor, targets: Tensor) -> Tensor:
    """RMSE of valence plus RMSE of arousal per branch: values [B, N, 2], targets [N, 2] -> [B]."""
    return (values.float() - targets).square().mean(dim=1).sqrt().sum(dim=-1)


@dataclass(frozen=True)
class Phase:
    """One entry of a recipe's `stages`.

    Attributes:
        active: number of branches that train (the first ones).
        epochs: how many.
        task: "expression" or "affect" (only the valence/arousal heads learn, everything else is frozen).
        lr_base, lr_new, lr_old: learning rates of the base, of the newest active branch, of the others; 0 freezes.
        per_class: largest number of samples per class (for affect: per quarter of the valence/arousal plane) in the
            random subset drawn for the stage (bagging); 0 for all.
        at_least: classes with fewer samples are repeated up to this number; 0 for no repetition.
        evaluate_every: epochs between validations.
        schedule: learning-rate factor.
        sources: which of the recipe's training sources are used, counted from 1; empty for all.
    """

    active: int
    epochs: int
    lr_base: float
    lr_new: float
    lr_old: float
    task: str = "expression"
    per_class: int = 0
    at_least: int = 0
    evaluate_every: int = 1
    schedule: Schedule = field(default_factory=Schedule)
    sources: tuple[int, ...] = ()


class ESRTrainee:
    """An ESR in training: stages of growing (or all) branches on capped random subsets."""

    def __init__(
        self,
        model: ESR,
        train: list[Samples],
        valid: list[Samples],
        phases: list[Phase],
        augment: Augment,
        batch: int = 32,
        mixup: float = 0.0,
        mixup_probability: float = 1.0,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        self.model, self.phases, self.augment, self.batch = model, phases, augment, batch
        self.mixup, self.mixup_probability, self.seed, self.workers = mixup, mixup_probability, seed, workers
        self.parts = train
        self.valid = FaceData(valid, model.config.input, model.labels)
        self.train: Dataset | None = None
        for phase in phases:
            if not 1 <= phase.active <= len(model.branches):
                raise UserError(f"a stage trains {phase.active} branches, the model has {len(model.branches)}")
            if not set(phase.sources) <= set(range(1, len(train) + 1)):
                raise UserError(f"a stage uses training sources {phase.sources}, the recipe has {len(train)}")
            if phase.task == "affect" and not model.config.affect:
                raise UserError("a stage trains valence and arousal, but the model has no affect heads")

    def stages(self) -> list[Stage]:
        """One stage per phase."""
        return [
            Stage(
                name=f"{phase.task}-{index + 1}",
                epochs=phase.epochs,
                groups=self._groups(phase),
                schedule=phase.schedule,
                evaluate_every=phase.evaluate_every,
                setting=phase,
            )
            for index, phase in enumerate(self.phases)
        ]

    def _groups(self, phase: Phase) -> list[tuple[float, list[nn.Parameter]]]:
        *old, new = self.model.branches[: phase.active]
        part = "affect" if phase.task == "affect" else None
        parts = [(phase.lr_base, [self.model.base] if part is None else []), (phase.lr_new, [new]), (phase.lr_old, old)]
        return [(rate, [p for m in modules for p in _learning(m, part)]) for rate, modules in parts if rate and modules]

    def begin(self, stage: Stage) -> None:
        """Draw the stage's subset and freeze what does not learn."""
        rng = np.random.default_rng([self.seed, self.phases.index(stage.setting)])
        phase: Phase = stage.setting
        task = "valence_arousal" if phase.task == "affect" else "expression"
        used = [p for k, p in enumerate(self.parts, start=1) if not phase.sources or k in phase.sources]
        parts = [p for p in used if task in p.targets]
        if not parts:
            raise UserError(f"no training sample is labelled for {phase.task}")
        data = FaceData(parts, self.model.config.input, self.model.labels)
        classes = quadrants(data.targets[task].numpy()) if phase.task == "affect" else data.classes()
        self.train = Subset(data, balance(classes, phase.at_least, phase.per_class, rng).tolist())
        learning = {id(p) for _, group in stage.groups for p in group}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in learning)

    def batches(self, stage: Stage) -> DataLoader:
        """Shuffled batches of the stage's subset."""
        return loader(self.train, self.batch, shuffle=True, workers=self.workers)

    def loss(self, model: nn.Module, batch: Any, stage: Stage) -> Tensor:
        """Sum over the active branches of the loss on one augmented batch."""
        faces, targets = batch
        phase: Phase = stage.setting
        self._modes()
        x = self.model.config.input.normalise(self.augment(faces))
        if phase.task == "affect":
            return affect_losses(model(x, active=phase.active)["valence_arousal"], targets["valence_arousal"]).sum()
        x, wanted = mixup(x, targets["expression"], self.mixup, self.mixup_probability)
        return branch_losses(model(x, active=phase.active)["expression"], wanted).sum()

    def _modes(self) -> None:
        """Training mode for parts that learn; frozen parts keep their batch-norm statistics."""
        for part in (self.model.base, *self.model.branches):
            part.train(all(p.requires_grad for p in part.parameters() if p.ndim == 4))

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Validation of the active branches: accuracy of the ensemble and of branches, or RMSE and CCC of affect."""
        logits = predict(model, self.valid, active=stage.setting.active)
        if stage.setting.task == "affect":
            return affect_figures(
                logits["valence_arousal"].mean(0).numpy(), self.valid.targets["valence_arousal"].numpy()
            )
        truth = self.valid.targets["expression"].numpy()
        known = np.isfinite(truth).all(axis=1)
        return expression_figures(model, logits["expression"][:, known], truth[known].argmax(axis=1))


def _learning(module: nn.Module, part: str | None) -> list[nn.Parameter]:
    """Parameters of a base or branch that the stage's task trains."""
    return [p for name, p in module.named_parameters() if name.startswith("affect") == (part == "affect")]


def predict(model: nn.Module, data: FaceData, active: int | None = None, batch: int = 128) -> dict[str, Tensor]:
    """Raw outputs for all faces of `data` in order, in evaluation mode: task -> [B, N, K] on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    parts = []
    with torch.inference_mode():
        for faces, _ in loader(data, batch, shuffle=False):
            x = model.config.input.normalise(faces.float()).to(device)
            parts.append({k: v.float().cpu() for k, v in model(x, active=active).items()})
    return {task: torch.cat([p[task] for p in parts], dim=1) for task in parts[0]}


def expression_figures(model: nn.Module, logits: Tensor, classes: np.ndarray) -> dict[str, float]:
    """Accuracy of the ensemble ("score"), mean accuracy of single branches, mean recall over classes."""
    task = model.decode({"expression": logits})["expression"]
    hits = task.choice == classes
    recall = [hits[classes == c].mean() for c in np.unique(classes)]
    single = (logits.argmax(-1).numpy() == classes).mean()
    return {"score": float(hits.mean()), "branch_accuracy": float(single), "mean_recall": float(np.mean(recall))}


def affect_figures(values: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """RMSE and concordance of valence and arousal; "score" is minus the sum of both RMSE."""
    known = np.isfinite(truth).all(axis=1)
    values, truth = values[known], truth[known]
    rmse = np.sqrt(((values - truth) ** 2).mean(axis=0))
    means, variances = (values.mean(0), truth.mean(0)), (values.var(0), truth.var(0))
    covariance = ((values - means[0]) * (truth - means[1])).mean(0)
    ccc = 2 * covariance / (variances[0] + variances[1] + (means[0] - means[1]) ** 2)  # Lin 1989
    names = ("valence", "arousal")
    out = {"score": -float(rmse.sum())}
    return (
        out | {f"rmse_{n}": float(v) for n, v in zip(names, rmse)} | {f"ccc_{n}": float(v) for n, v in zip(names, ccc)}
    )


def build(recipe: Recipe, folders: dict[str, Path], init: str | None) -> ESRTrainee:
    """The trainee of an ESR recipe; `init` is a checkpoint to start from, which `fine_tune: true` demands.

    Raises:
        UserError: the recipe's fields, its data, or the checkpoint to start from do not fit.
    """
    if recipe.rest.get("fine_tune") and not init:
        raise UserError("this recipe starts from a trained network: add --init CHECKPOINT")
    trainee = assemble(recipe, samples(recipe, "train", folders), samples(recipe, "valid", folders))
    if init:
        start(trainee.model, hub.load(init))
    return trainee


def assemble(recipe: Recipe, train: list[Samples], valid: list[Samples]) -> ESRTrainee:
    """The trainee of a recipe on samples that are already read; `calibrate: true` is for `report`.

    Raises:
        UserError: the recipe's fields do not fit.
    """
    rest = {k: v for k, v in recipe.rest.items() if k not in ("fine_tune", "calibrate")}
    torch.manual_seed(recipe.settings.seed)
    return ESRTrainee(
        model=_model(rest.pop("model")),
        train=train,
        valid=valid,
        phases=[parse(Phase, p, f"stage {k + 1}") for k, p in enumerate(rest.pop("stages"))],
        augment=parse(Augment, rest.pop("augment", {}), "augment"),
        seed=recipe.settings.seed,
        **rest,
    )


def _model(table: dict[str, Any]) -> ESR:
    table = dict(table)
    presets = {"esr9": esr.esr9, "esr4": esr.esr4}
    if "preset" not in table:
        return hub.build("esr", table, where="model")
    name = table.pop("preset")
    if name not in presets:
        raise UserError(f"model: unknown preset {name!r}; known: {', '.join(presets)}")
    return ESR(presets[name](**table))


def start(model: ESR, other: nn.Module) -> None:
    """Begin from another ESR's weights; affect heads that only one of the two has are left as they are.

    Raises:
        UserError: the other checkpoint is no ESR of the same shape.
    """
    given = other.state_dict()
    wanted = {k: v for k, v in model.state_dict().items() if ".affect." not in k}
    bad = [k for k, v in wanted.items() if k not in given or given[k].shape != v.shape]
    if bad:
        raise UserError(f"cannot start from this checkpoint: {len(bad)} tensors are missing or differ, e.g. {bad[0]}")
    model.load_state_dict({k: given[k] for k in model.state_dict() if k in given}, strict=False)


def calibrated(logits: Tensor, classes: np.ndarray) -> tuple[float, str]:
    """The temperature that suits half of the faces, and what it does to the other half, in words.

    Args:
        logits: [B, N, K]; classes: int [N].
    """

    def mean(temperature: float, rows: np.ndarray) -> np.ndarray:
        return (logits[:, rows] / temperature).softmax(-1).mean(0).numpy()

    fitted, judged = calibrate.halves(len(classes))
    found = calibrate.search(lambda t: core.nll_classes(mean(t, fitted), classes[fitted]))
    names = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier score"}
    temperature, told = round(found, 4), []
    for t in (1.0, temperature):
        p, y = mean(t, judged), classes[judged]
        figures = core.of_classes(p, y) | {"accuracy": float((p.argmax(1) == y).mean())}
        told.append(", ".join(f"{name} {figures[k]:.4f}" for k, name in names.items()))
    text = (
        f"Class scores are divided by the temperature {temperature}, fitted on a random half of the {len(classes)} "
        f"validation faces. On the other half, without it: {told[0]}; with it: {told[1]}."
    )
    return temperature, text


def report(trainee: ESRTrainee, recipe: Recipe, command: str) -> tuple[hub.Card, str]:
    """Measure the trained model on validation; returns what config.json stores and the model card's text."""
    model, figures, lines = trainee.model.cpu(), {}, []
    # figures of the weights as they are stored: half precision
    model.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in model.state_dict().items()})
    if recipe.rest.get("calibrate"):
        classes = trainee.valid.classes()
        temperature, text = calibrated(
            predict(model, trainee.valid)["expression"][:, classes >= 0], classes[classes >= 0]
        )
        model.config = replace(model.config, temperature=temperature)
        lines += ["", text]
    seen = figures_of.pictures_seen(trainee.valid, trainee.parts)
    first = 0
    for part in trainee.valid.parts:
        data = FaceData([part], model.config.input, model.labels)
        tasks = model.decode(predict(model, data))
        where, here = f"{part.dataset}/{part.split}", seen[first : first + len(part)]
        first += len(part)
        for name, task in tasks.items():
            if name not in part.targets:
                continue
            truth = data.targets[name].numpy()
            if name == "expression":
                measured = figures_of.expression_report(task, truth.argmax(axis=1), here)
                keep = ("accuracy", "accuracy_unseen", "mean_recall")
                figures |= {f"{where}/{k}": round(measured[k], 4) for k in keep}
                lines += ["", f"### Expression on {where} ({part.protocol}; {measured['n']} faces)", ""]
                lines += [
                    f"Accuracy {measured['accuracy']:.4f}; {measured['accuracy_unseen']:.4f} without the "
                    f"{measured['n_seen']} pictures that also occur in training.",
                    "",
                ]
                lines += figures_of.confusion_table(measured)
            else:
                measured = affect_figures(task.values, truth)
                figures |= {f"{where}/{k}": round(v, 4) for k, v in measured.items() if k != "score"}
                lines += ["", f"### Valence and arousal on {where}", ""]
                lines += [", ".join(f"{k} {v:.3f}" for k, v in measured.items() if k != "score")]
    trained_on = tuple(dict.fromkeys(p.dataset for p in trainee.parts))
    card = hub.Card(recipe.name, recipe.licence, recipe.commercial, trained_on, figures, "trained by this project")
    return card, figures_of.card_text(card, recipe, model, command, lines)
