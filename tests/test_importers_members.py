"""Which files of a folder are the members of an EMENet ensemble: by what distinguishes them, and none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from emotion.cli import importing
from emotion.errors import UserError
from emotion.importers.emenet import choose


def folder(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def chosen(root: Path, members: str = "*", epoch: int | tuple[int, ...] | None = None) -> dict[str, str]:
    return {k: str(v) for k, v in choose(root, members, epoch).items()}


def test_members_side_by_side_in_one_folder(tmp_path: Path) -> None:
    files = [f"checkpoints/net_epoch_{e}_{name}.pth" for e, name in ((4, "a"), (4, "b"), (9, "b"))]
    root = folder(tmp_path, *files)
    assert chosen(root) == {"a": files[0], "b": files[2]}
    assert chosen(root / "checkpoints", "b", 4) == {"b": "net_epoch_4_b.pth"}


def test_members_told_by_their_folders_alone(tmp_path: Path) -> None:
    files = [f"member_{m}/net_epoch_{e}_student.pth" for m, e in ((10, 1), (2, 1), (2, 3))]
    root = folder(tmp_path, *files)
    assert chosen(root) == {"member_2/student": files[2], "member_10/student": files[0]}
    assert chosen(root, "member_10") == {"member_10/student": files[0]}


def test_generations_stay_apart(tmp_path: Path) -> None:
    """They never mix in one ensemble; each can be asked for."""
    one, two = ("round_1/student/net_epoch_9_a.pth", "round_2/student/net_epoch_4_a.pth")
    root = folder(tmp_path, one, two, "round_2/other/net_epoch_4_b.pth")
    for members in ("*", "student"):
        with pytest.raises(UserError, match="of two ensembles"):
            choose(root, members)
    assert list(chosen(root, "round_2/*")) == ["b", "round_2/student/a"]
    assert chosen(root, "round_1/student") == {"round_1/student/a": one}
    assert chosen(root, "other") == {"b": "round_2/other/net_epoch_4_b.pth"}


def test_two_files_for_one_member_and_epoch_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "zeros", "net_epoch_4_a.pth", "net_epoch_04_a.pth")
    with pytest.raises(UserError, match="two files for one member and epoch"):
        choose(root, "*")


def test_epochs_for_all_or_for_each_member(tmp_path: Path) -> None:
    names = [f"exp_{m}" for m in (0, 1, 10)]
    root = folder(tmp_path, *(f"{name}/net_epoch_{e}_{name}.pth" for name in names for e in (4, 7, 8)))
    epoch = importing._options("emenet", ["--epoch", "8,4,7"])["epoch"]
    expected = {name: f"{name}/net_epoch_{e}_{name}.pth" for name, e in zip(names, (8, 4, 7))}
    assert chosen(root, epoch=epoch) == expected and list(chosen(root)) == names
    assert importing._options("emenet", ["--epoch", "7"])["epoch"] == (7,) and chosen(root, epoch=7) == chosen(
        root, epoch=(7,)
    )
    with pytest.raises(UserError, match=r"epoch has 2 values, .* holds 3 members: .* exp_0, exp_1, exp_10"):
        choose(root, "*", (8, 4))
    with pytest.raises(UserError, match="holds no epoch 5 of exp_1, only 4, 7, 8"):
        choose(root, "*", (8, 5, 7))
