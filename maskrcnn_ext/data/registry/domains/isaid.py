"""iSAID (captain-whu.github.io/iSAID; arXiv:1905.12886): objects in aerial images, as the patches that its development kit cuts.

The order of the classes is that of the category ids in the JSON, which is not the same in every version of the kit. So the JSON's counts.
"""

from __future__ import annotations

from typing import Any

COLORS = {
    "ship": (0, 0, 63),
    "storage_tank": (0, 63, 63),
    "baseball_diamond": (0, 63, 0),
    "tennis_court": (0, 63, 127),
    "basketball_court": (0, 63, 191),
    "Ground_Track_Field": (0, 63, 255),
    "Bridge": (0, 127, 63),
    "Large_Vehicle": (0, 127, 127),
    "Small_Vehicle": (0, 0, 127),
    "Helicopter": (0, 0, 191),
    "Swimming_pool": (0, 0, 255),
    "Roundabout": (0, 191, 127),
    "Soccer_ball_field": (0, 127, 191),
    "plane": (0, 127, 255),
    "Harbor": (0, 100, 155),
}
CLASSES = tuple(COLORS)
LAYOUT = "iSAID_patches/{train,val}/{instancesonly_filtered_{train,val}.json,images/*.png}"

DATASETS: dict[str, dict[str, Any]] = {
    f"isaid_{split}": {
        "format": "coco",
        "json": f"iSAID_patches/{split}/instancesonly_filtered_{split}.json",
        "images": f"iSAID_patches/{split}/images",
        "colors": COLORS,
        "layout": LAYOUT,
    }
    for split in ("train", "val")
}
