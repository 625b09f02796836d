"""KITTI MOTS (vision.rwth-aachen.de/page/mots; arXiv:1902.03604): drives with tracked cars and pedestrians, split by sequence as there."""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains import cityscapes

CLASSES = ("car", "pedestrian")
# Those of Cityscapes, as in the KITTI benchmarks.
COLORS = {"car": cityscapes.COLORS["car"], "pedestrian": cityscapes.COLORS["person"]}
LAYOUT = "kitti_mots/instances/<sequence>/<frame>.png and kitti_mots/training/image_02/<sequence>/<frame>.png"
SEQUENCES = {
    "train": (0, 1, 3, 4, 5, 9, 11, 12, 15, 17, 19, 20),
    "val": (2, 6, 7, 8, 10, 13, 14, 16, 18),
}

DATASETS: dict[str, dict[str, Any]] = {
    f"kitti_mots_{split}": {
        "format": "kitti_mots",
        "instances": "kitti_mots/instances",
        "images": "kitti_mots/training/image_02",
        "sequences": tuple(f"{number:04d}" for number in numbers),
        "classes": CLASSES,
        "colors": COLORS,
        "layout": LAYOUT,
    }
    for split, numbers in SEQUENCES.items()
}
