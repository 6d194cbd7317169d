"""BENet's checkpoints, and the HRNet backbones that training starts from.

Three files of the original are understood: `model_best.pth.tar` and `final_state0.pth.tar` (a state dict each) and
`checkpoint.pth.tar` (the state of a training run). They always hold all heads; those that the configuration did not
train are random numbers, recognised by batch-norm counters that never moved, and are left out.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from emotion import hub, labels
from emotion.errors import UserError
from emotion.importers import Imported
from emotion.importers.files import choose, state_dict, without_counters
from emotion.models.benet import CONFIGURATIONS, HEADS, BENetConfig

FILES = ("model_best.pth.tar", "final_state0.pth.tar", "checkpoint.pth.tar")  # the best first
STAGES = ("stage2", "stage3", "stage4")
LEAST = 1 / 3  # of a stage must be in a backbone's file; HRNet's stage 2 is half of BENet's
# Original name -> ours; the first pattern that matches counts.
_RENAMES = [
    (r"(hm|hw|bu)_final_layers\.0\.([012])\.0\.", r"\1.low.\2."),
    (r"(hm|hw|bu)_final_layers\.0\.3\.", r"\1.low.3."),
    (r"(hm|hw|bu)_final_layers\.1\.", r"\1.high.3."),
    (r"(hm|hw|bu)_deconv_layers\.0\.0\.", r"\1.up."),
    (r"(hm|hw|bu)_deconv_layers\.0\.([123])\.0\.", lambda m: f"{m[1]}.high.{int(m[2]) - 1}."),
    (r"pc_incre_modules\.(\d)\.0\.", r"pc.increase.\1."),
    (r"pc_downsamp_modules\.", "pc.reduce."),
    (r"pc_final_layer\.", "pc.final."),
    (r"pc_classifier\.", "pc.classifier."),
    (r"incre_modules\.(\d)\.0\.", r"bg.increase.\1."),
    (r"downsamp_modules\.", "bg.reduce."),
    (r"final_layer\.", "bg.final."),
    (r"classifier\.", "bg.classifier."),
    (r"fusion\.mlp\.", "fusion."),
    (r"bu_mixed\.([01])\.", r"extra.bu\1."),
    (r"(pc|fusion)_mixed\.", r"extra.\1."),
    (r"context_mixed\.", "extra.bg."),
    (r"transition1\.1\.0\.", "backbone.transition1.1."),
    (r"transition2\.2\.0\.", "backbone.transition2."),
    (r"transition3\.3\.0\.", "backbone.transition3."),
    (r"(?=(conv[12]|bn[12]|layer1|transition1|stage[234])\.)", "backbone."),
]


def rename(name: str) -> str:
    """Our name of an original tensor; a name that BENet does not have comes back unchanged."""
    for pattern, ours in _RENAMES:
        if re.match(pattern, name):
            name = re.sub(pattern, ours, name, count=1)
            break
    name = re.sub(r"^hm\.", "heatmap.", re.sub(r"^hw\.", "size.", name))
    return name.replace(".attention_block.", ".se.")


def read(source: Path, configuration: str | None = None, name: str | None = None) -> Imported:
    """A BENet checkpoint, or the folder or archive that holds its `model_best.pth.tar`.

    Args:
        source: file, folder or archive.
        configuration: key of `models.benet.CONFIGURATIONS`, where the file does not show which heads were trained.
        name: the new checkpoint's name, `arch.tag`.

    Raises:
        UserError: not a BENet checkpoint, or an unknown configuration.
    """
    original = state_dict(*choose(source, *FILES))
    if "classifier.2.weight" not in original:
        hint = (
            " It looks like an HRNet backbone: start training from it with --init FILE."
            if "conv1.weight" in original
            else ""
        )
        raise UserError(f"{source} is no BENet checkpoint (it lacks classifier.2.weight).{hint}")
    config = _config(original, configuration)
    ours = {rename(k): v for k, v in without_counters(original).items()}
    unused = {"det": ("heatmap.", "size."), "bg": ("bg.", "extra.bg."), "pc": ("pc.", "extra.pc.")}
    unused["fusion"] = ("fusion.", "extra.fusion.")
    prefixes = tuple(p for head, ps in unused.items() if head not in config.heads for p in ps)
    left = sorted({f"{k.split('.')[0]}.*" for k in original if rename(k).startswith(prefixes)})
    dropped = dict.fromkeys(left, "a head that this configuration does not train")
    data = ("EMOTIC", "HECO") if config.extra else ("EMOTIC",)
    card = hub.Card(
        name=name or f"{_variant(config)}.{'_'.join(data).lower()}",
        licence="original weights; EMOTIC's terms: non-commercial research and education",
        commercial=False,
        trained_on=data,
        source=f"imported from {source.name}",
    )
    notes = [f"Heads: {', '.join(config.heads)}."]
    return Imported(config, {k: v for k, v in ours.items() if not k.startswith(prefixes)}, card, dropped, notes)


def _variant(config: BENetConfig) -> str:
    """`benet_<configuration>`, or `benet` where every head was kept."""
    for configuration, heads in CONFIGURATIONS.items():
        if set(heads) == set(config.heads) and configuration.endswith("_ed") == bool(config.extra):
            return f"benet_{configuration}"
    return "benet"


def _config(original: dict[str, Tensor], configuration: str | None) -> BENetConfig:
    """The network's config from its tensors: outputs, extra data, and which heads were trained."""
    affect = labels.VAD if len(original["classifier.2.weight"]) == len(labels.EMOTIC) + len(labels.VAD) else ()
    extra = labels.HECO if "bu_mixed.0.weight" in original else ()
    full = BENetConfig(affect=affect, extra=extra)
    if configuration is not None:
        if configuration not in CONFIGURATIONS:
            raise UserError(f"unknown configuration {configuration!r}; known: {', '.join(CONFIGURATIONS)}")
        return replace(full, heads=CONFIGURATIONS[configuration])
    counters = {
        "det": "hm_final_layers.1.1",
        "bu": "bu_final_layers.1.1",
        "pc": "pc_final_layer.1",
        "bg": "final_layer.1",
        "backbone": "bn1",
    }
    moved = {k for k, v in counters.items() if int(original.get(f"{v}.num_batches_tracked", 0)) > 0}
    if "backbone" not in moved:  # no counters: nothing is known, so everything is kept
        return full
    return replace(full, heads=tuple(h for h in HEADS if h in moved | {"bu"}))


def backbone(source: str | Path, wanted: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a HigherHRNet (COCO pose) or HRNet (ImageNet) file that a BENet backbone can start from.

    Args:
        source: the original's .pth file.
        wanted: state dict of the BENet to be trained.

    Returns:
        Our name -> tensor, and the original's unused names -> why.

    Raises:
        UserError: the file is of another network, or of a wider or narrower one.
    """
    source = Path(source)
    width = len(wanted["backbone.transition1.0.0.weight"])
    advice = f"start from an HRNet-W{width}: a pose (HigherHRNet) or ImageNet backbone"
    taken: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    for name, value in state_dict(source).items():
        ours = rename(re.sub(r"^\d+\.", "", name))
        if not ours.startswith("backbone.") or ours not in wanted:
            dropped[name] = "BENet has no such layer"
        elif wanted[ours].shape != value.shape:
            there, here = tuple(value.shape), tuple(wanted[ours].shape)
            raise UserError(f"{source} does not fit: {name} has the shape {there}, not {here}; {advice}")
        else:
            taken[ours] = value
    if lacking := [stage for stage in STAGES if _share(taken, wanted, stage) < LEAST]:
        raise UserError(f"{source} does not fit: it lacks {', '.join(lacking)} of the backbone; {advice}")
    return taken, dropped


def _share(taken: dict[str, Tensor], wanted: dict[str, Tensor], stage: str) -> float:
    """How much of a stage the file has; attention, which is BENet's own, and counters do not count."""
    names = [
        k for k in wanted if k.startswith(f"backbone.{stage}.") and ".se." not in k and "num_batches_tracked" not in k
    ]
    return sum(name in taken for name in names) / max(len(names), 1)
