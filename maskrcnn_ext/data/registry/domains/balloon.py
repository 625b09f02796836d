"""Balloons on photographs: the example of Matterport's Mask R-CNN (its release v2.1, MIT), with its own split."""

from __future__ import annotations

from typing import Any

CLASSES = ("balloon",)
LAYOUT = "balloon/balloon/{train,val}/{via_region_data.json,*.jpg}"

DATASETS: dict[str, dict[str, Any]] = {
    f"balloon_{split}": {
        "format": "via",
        "json": f"balloon/balloon/{split}/via_region_data.json",
        "images": f"balloon/balloon/{split}",
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for split in ("train", "val")
}
