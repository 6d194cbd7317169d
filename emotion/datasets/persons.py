"""Single figures with exact masks and pictures without people, in the layout of `coco_person`: parts for composing."""

from __future__ import annotations

from functools import partial

from emotion.datasets import coco_person
from emotion.datasets.coco_person import fake

load = partial(coco_person.load, name="persons")

__all__ = ["fake", "load"]
