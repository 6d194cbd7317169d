"""Single figures with exact masks and pictures without people, in the layout of `coco_person`: parts for composing."""

from emotion.datasets.coco_person import fake, load

__all__ = ["fake", "load"]
