"""Kangaroos on photographs (experiencor/kangaroo on GitHub): an example data set of boxes without masks.

It names no split: the images are sorted by name and the last fifth is held out.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains.held_out import BY_FILE

CLASSES = ("kangaroo",)
LAYOUT = "kangaroo/annots/*.xml and kangaroo/images/*.jpg"

DATASETS: dict[str, dict[str, Any]] = {
    f"kangaroo_{split}": {
        "format": "voc",
        "annotations": "kangaroo/annots",
        "images": "kangaroo/images",
        "select": select,
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for split, select in BY_FILE.items()
}
