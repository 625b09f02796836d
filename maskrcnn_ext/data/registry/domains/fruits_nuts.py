"""Dates, figs and hazelnuts on a table: the 18 photographs of a tutorial (Tony607/mmdetection_instance_segmentation_demo, MIT).

They have no split: the images are sorted by name and the last fifth is held out.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains.held_out import BY_FILE

CLASSES = ("date", "fig", "hazelnut")
LAYOUT = "fruits_nuts/data/{trainval.json,images/*.jpg}"

DATASETS: dict[str, dict[str, Any]] = {
    f"fruits_nuts_{split}": {
        "format": "coco",
        "json": "fruits_nuts/data/trainval.json",
        "images": "fruits_nuts/data/images",
        "select": select,
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for split, select in BY_FILE.items()
}
