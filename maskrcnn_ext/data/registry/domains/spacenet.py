"""SpaceNet 2 building footprints (spacenet.ai; arXiv:1807.01232): satellite chips as GeoTIFF, a GeoJSON of outlines each.

The published labels have no validation split: the chips are sorted by name and the last fifth is held out. Chips do not overlap.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains.held_out import BY_FILE

CLASSES = ("building",)
LAYOUT = "spacenet/images/<chip>.tif and spacenet/buildings/<chip>.geojson, of equal names"

_ALL = {
    "format": "geo",
    "vector": "spacenet/buildings",
    "raster": "spacenet/images",
    "classes": CLASSES,
    "layout": LAYOUT,
}
DATASETS: dict[str, dict[str, Any]] = {
    "spacenet_buildings": _ALL,
    **{f"spacenet_buildings_{split}": {**_ALL, "select": select} for split, select in BY_FILE.items()},
}
