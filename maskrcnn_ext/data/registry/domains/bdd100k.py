"""BDD100K instance segmentation (bdd-data.berkeley.edu; arXiv:1805.04687): streets of American cities, with the official split."""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains import cityscapes

CLASSES = ("pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
# Those of Cityscapes, whose person is a pedestrian here.
COLORS = {name: cityscapes.COLORS["person" if name == "pedestrian" else name] for name in CLASSES}
LAYOUT = "bdd100k/labels/ins_seg/bitmasks/{train,val}/*.png and bdd100k/images/10k/{train,val}/*.jpg"

DATASETS: dict[str, dict[str, Any]] = {
    f"bdd100k_{split}": {
        "format": "bdd100k",
        "annotations": f"bdd100k/labels/ins_seg/bitmasks/{split}",
        "images": f"bdd100k/images/10k/{split}",
        "classes": CLASSES,
        "colors": COLORS,
        "layout": LAYOUT,
    }
    for split in ("train", "val")
}
