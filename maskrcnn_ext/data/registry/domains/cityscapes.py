"""Cityscapes (cityscapes-dataset.com; arXiv:1604.01685): streets of European cities, fine annotations, with the official split.

Detectron2's own ``cityscapes_fine_instance_seg_*`` are the same images, for its Cityscapes evaluator; these are for COCO's metrics.
"""

from __future__ import annotations

from typing import Any

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
COLORS = {
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
LAYOUT = (
    "cityscapes/gtFine/{train,val}/<city>/*_gtFine_instanceIds.png and "
    "cityscapes/leftImg8bit/{train,val}/<city>/*_leftImg8bit.png"
)

DATASETS: dict[str, dict[str, Any]] = {
    f"cityscapes_{split}": {
        "format": "cityscapes",
        "annotations": f"cityscapes/gtFine/{split}",
        "images": f"cityscapes/leftImg8bit/{split}",
        "classes": CLASSES,
        "colors": COLORS,
        "layout": LAYOUT,
    }
    for split in ("train", "val")
}
