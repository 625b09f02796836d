"""Kudzu bugs on soybean leaves (lesc-ufv/kudzu-dataset on GitHub, MIT): small and sometimes very dense objects, with its own split."""

from __future__ import annotations

from typing import Any

CLASSES = ("kudzu",)
LAYOUT = "kudzu_bugs/{train,val}/{via_region_data.json,*.jpg}"

DATASETS: dict[str, dict[str, Any]] = {
    f"kudzu_bugs_{split}": {
        "format": "via",
        "json": f"kudzu_bugs/{split}/via_region_data.json",
        "images": f"kudzu_bugs/{split}",
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for split in ("train", "val")
}
