"""The one training loop: stages of epochs, on `accelerate`, resumable after a kill, best state on validation.

A method hands over a `Trainee`; the loop owns optimisation, averaging, logging, selection and checkpoints.
Run under `torchrun --nproc_per_node N` it trains on N processes.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from emotion.errors import UserError

PROGRESS = "progress.json"


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor over a stage.

    Attributes:
        kind: "constant", "step" (times `factor` every `every` epochs, or at the start of the epochs `at`, counted from
            1) or "cosine" (to zero at the stage's end).
        warmup: epochs of linear increase from zero before it.
    """

    kind: str = "constant"
    factor: float = 1.0
    every: int = 1
    at: tuple[int, ...] = ()
    warmup: float = 0.0

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor after `epoch` epochs (fractions count for warm-up and cosine)."""
        warm = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        if self.kind == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * min(epoch / epochs, 1.0)))
        if self.kind == "step":
            steps = sum(int(epoch) + 1 >= start for start in self.at) if self.at else int(epoch) // self.every
            return warm * self.factor**steps
        if self.kind == "constant":
            return warm
        raise UserError(f"unknown schedule {self.kind!r}; known: constant, step, cosine")


@dataclass
class Stage:
    """Some epochs with fixed parameter groups.

    Attributes:
        name: shown in logs.
        epochs: how many.
        groups: learning rate -> parameters; parameters in no group are not trained.
        schedule: factor on all learning rates, restarting with the stage.
        evaluate_every: epochs between validations (the last epoch always validates).
        setting: anything the trainee needs to know ("how many branches are active").
    """

    name: str
    epochs: int
    groups: list[tuple[float, list[nn.Parameter]]]
    schedule: Schedule = Schedule()
    evaluate_every: int = 1
    setting: Any = None


@dataclass(frozen=True)
class Settings:
    """How to optimise, the same for all stages.

    Attributes:
        seed: of everything random.
        optimizer: "sgd" or "adamw".
        momentum, dampening, nesterov: of SGD.
        betas: of AdamW (which without weight decay is Adam).
        weight_decay: on weight matrices and kernels only; biases and norms have none, unless `decay_all`.
        clip: largest gradient norm, 0 for none.
        ema: decay of the weights' moving average, which is what is validated and kept; 0 for none.
        precision: "no", "bf16" or "fp16".
        compile: let torch.compile fuse the network (needs a C++ compiler; minutes at the start).
    """

    seed: int = 0
    optimizer: str = "sgd"
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decay_all: bool = False
    clip: float = 0.0
    ema: float = 0.0
    precision: str = "no"
    compile: bool = False


class Trainee(Protocol):
    """What a method brings: `model` and how to feed, judge and switch it.

    One that changes with its own validation figures also has `resume(rows)`: when an interrupted stage goes on, it is
    called after `begin` with the rows of the epochs that were finished before.
    """

    model: nn.Module

    def stages(self) -> list[Stage]:
        """All stages, in order."""

    def begin(self, stage: Stage) -> None:
        """Before a stage: freeze, switch modules, draw this stage's subset."""

    def batches(self, stage: Stage) -> torch.utils.data.DataLoader:
        """Training data of the stage."""

    def loss(self, model: nn.Module, batch: Any, stage: Stage) -> Tensor:
        """Scalar loss of one batch; `model` is `self.model`, possibly wrapped. Sets training mode itself."""

    def evaluate(self, model: nn.Module, stage: Stage) -> dict[str, float]:
        """Validation figures; the largest "score" is kept."""


@dataclass
class Progress:
    """Where a run is, and what it has seen: the content of progress.json."""

    stage: int = 0
    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


def fit(trainee: Trainee, out: Path, settings: Settings) -> list[dict[str, float]]:
    """Train through all stages; afterwards `trainee.model` holds the best state of the last stage.

    A run that finds its own `progress.json` in `out` goes on after the last finished epoch, with the same random
    numbers as if it had never stopped.

    Args:
        trainee: model, data, loss and evaluation.
        out: folder for log.csv, the running state and the best weights of every stage.
        settings: optimisation.

    Returns:
        One row per validated epoch: stage, epoch, loss, seconds and the trainee's figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    set_seed(settings.seed)
    AcceleratorState._reset_state()  # a run before this one in the same process may have had another precision
    accelerator = Accelerator(mixed_precision=settings.precision, cpu=not torch.cuda.is_available())
    progress = _read_progress(out)
    for index, stage in enumerate(trainee.stages()):
        if index < progress.stage:
            _load_best(trainee.model, out, index)
            continue
        if index > progress.stage:
            progress = Progress(stage=index, history=progress.history)
        set_seed(settings.seed + index)
        trainee.begin(stage)
        _run_stage(trainee, stage, out, settings, accelerator, progress)
        _load_best(trainee.model, out, index)
    return progress.history


def _run_stage(
    trainee: Trainee, stage: Stage, out: Path, settings: Settings, accelerator: Accelerator, progress: Progress
) -> None:
    model = trainee.model.to(memory_format=torch.channels_last)
    average = Average(model, settings.ema) if settings.ema else None
    loader, optimizer = trainee.batches(stage), _optimizer(stage, settings)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if not len(loader):
        raise UserError(f"{stage.name}: {len(loader.dataset)} training samples fill no batch; make `batch` smaller")
    if progress.epoch:
        accelerator.load_state(str(_state(out, progress)))
        if average:
            average.load(_state(out, progress) / "average.safetensors")
        if resume := getattr(trainee, "resume", None):
            resume(progress.history[-progress.epoch :])
    fast = torch.compile(wrapped) if settings.compile else wrapped
    for epoch in range(progress.epoch, stage.epochs):
        start = time.perf_counter()
        loss = _run_epoch(trainee, fast, stage, epoch, optimizer, loader, accelerator, average, settings)
        row: dict[str, Any] = {"stage": stage.name, "epoch": epoch, "loss": loss}
        if (epoch + 1) % stage.evaluate_every == 0 or epoch + 1 == stage.epochs:
            judged = average.model if average else accelerator.unwrap_model(wrapped)
            row |= trainee.evaluate(judged, stage)
            if row["score"] >= progress.best:  # of equals, the later one
                progress.best, progress.best_epoch = row["score"], epoch
                if accelerator.is_main_process:
                    _save_tensors(judged, _best(out, progress.stage))
        row["seconds"] = round(time.perf_counter() - start, 3)
        progress.history.append(row)
        progress.epoch = epoch + 1
        _save_progress(out, progress, accelerator, average)
    accelerator.free_memory()


def _run_epoch(
    trainee: Trainee,
    model: nn.Module,
    stage: Stage,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    loader: Iterable,
    accelerator: Accelerator,
    average: Average | None,
    settings: Settings,
) -> float:
    rates = [rate for rate, _ in stage.groups for _ in range(2)]
    total, steps = 0.0, len(loader)
    bar = tqdm(
        loader, desc=f"{stage.name} {epoch + 1}/{stage.epochs}", disable=not accelerator.is_main_process, mininterval=2
    )
    for step, batch in enumerate(bar):
        factor = stage.schedule(epoch + step / steps, stage.epochs)
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * factor
        loss = trainee.loss(model, batch, stage)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss became {loss.item()} in {stage.name}, epoch {epoch + 1}: lower the learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        if settings.clip:
            accelerator.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        if average:
            average.update()
        total += loss.item()
        bar.set_postfix(loss=f"{total / (step + 1):.3f}")
    return total / max(steps, 1)


def _optimizer(stage: Stage, settings: Settings) -> torch.optim.Optimizer:
    groups = []
    for rate, parameters in stage.groups:
        # timm's and torchvision's rule: only kernels and matrices decay
        groups.append(
            {"params": [p for p in parameters if p.ndim > 1], "lr": rate, "weight_decay": settings.weight_decay}
        )
        rest = settings.weight_decay if settings.decay_all else 0.0
        groups.append({"params": [p for p in parameters if p.ndim <= 1], "lr": rate, "weight_decay": rest})
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=0.0, momentum=settings.momentum, dampening=settings.dampening, nesterov=settings.nesterov
        )
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas)
    raise UserError(f"unknown optimizer {settings.optimizer!r}; known: sgd, adamw")


class Average:
    """Exponential moving average of weights and batch-norm statistics."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        from timm.utils import ModelEmaV3

        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=10.0, warmup_power=1.0)
        self.source, self.steps = model, 0

    @property
    def model(self) -> nn.Module:
        """The averaged copy, in evaluation mode."""
        return self.ema.module

    def update(self) -> None:
        """Take one step of the average."""
        self.steps += 1
        self.ema.update(self.source, step=self.steps)

    def load(self, path: Path) -> None:
        """Go on from a saved average."""
        tensors = load_file(path)
        self.steps = int(tensors.pop("steps"))
        self.model.load_state_dict(tensors)

    def save(self, path: Path) -> None:
        """Write the average and its step count."""
        save_file(
            {k: v.contiguous() for k, v in self.model.state_dict().items()} | {"steps": torch.tensor(self.steps)}, path
        )


# -- files: state-<stage>-<epoch>/ is complete before progress.json names it ------------------------------------------


def _read_progress(out: Path) -> Progress:
    path = out / PROGRESS
    if not path.is_file():
        return Progress()
    try:
        return Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it to start afresh") from error


def _state(out: Path, progress: Progress) -> Path:
    return out / f"state-{progress.stage}-{progress.epoch}"


def _best(out: Path, stage: int) -> Path:
    return out / f"best-{stage}.safetensors"


def _save_progress(out: Path, progress: Progress, accelerator: Accelerator, average: Average | None) -> None:
    state = _state(out, progress)
    accelerator.save_state(str(state))
    if not accelerator.is_main_process:
        return
    if average:
        average.save(state / "average.safetensors")
    partial = out / (PROGRESS + ".part")
    partial.write_text(json.dumps(progress.__dict__), encoding="utf-8")
    partial.replace(out / PROGRESS)
    _write_log(out / "log.csv", progress.history)
    for old in out.glob("state-*"):
        if old != state:
            shutil.rmtree(old)


def _write_log(path: Path, history: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(k for row in history for k in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in history)


def _save_tensors(model: nn.Module, path: Path) -> None:
    partial = path.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, partial)
    partial.replace(path)


def _load_best(model: nn.Module, out: Path, stage: int) -> None:
    model.load_state_dict(load_file(_best(out, stage)))
