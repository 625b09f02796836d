"""Penn-Fudan pedestrians (cis.upenn.edu/~jshi/ped_html): 170 photographs with label images.

It names no split: the images are sorted by name and the last fifth is held out.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains.held_out import BY_FILE

CLASSES = ("person",)
LAYOUT = "PennFudanPed/PNGImages/<name>.png and PennFudanPed/PedMasks/<name>_mask.png"

DATASETS: dict[str, dict[str, Any]] = {
    f"penn_fudan_{split}": {
        "format": "label_image",
        "labels": "PennFudanPed/PedMasks",
        "images": "PennFudanPed/PNGImages",
        "suffix": "_mask",
        "select": select,
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for split, select in BY_FILE.items()
}
