"""Tree crowns from above: an orthomosaic and the outlines of its crowns, as for detectree2 (doi:10.1002/rse2.332), in windows.

There is no split: the lower fifth of every orthomosaic is held out. Windows on the border are in neither part.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains.held_out import BY_PLACE

CLASSES = ("tree",)
LAYOUT = "tree_crowns/rgb/*.tif, one orthomosaic or several, and tree_crowns/crowns.gpkg, the outlines for all"
# Pixels: 80 metres at 10 centimetres, several times the largest crown.
TILE = 800

DATASETS: dict[str, dict[str, Any]] = {
    f"tree_crowns_{split}": {
        "format": "geo",
        "vector": "tree_crowns/crowns.gpkg",
        "raster": "tree_crowns/rgb",
        "tile": TILE,
        "min_visible": 0.25,  # the rim of a crown whose stem is outside shows no crown
        "select": select,
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for split, select in BY_PLACE.items()
}
