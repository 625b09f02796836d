"""OCID, the Object Clutter Indoor Dataset (arXiv:1902.07000): a robot's images of things on a floor or a table, one class.

It names no split. A scene's frames follow one another, so that images drawn by chance would be in both parts: floor and table are kept
apart instead. In the label images 1 is the floor and, of scenes on a table, 2 the table.
"""

from __future__ import annotations

from typing import Any

CLASSES = ("object",)
LAYOUT = "ocid/{floor,table}/{rgb,label}/<name>.png, the frames of all sequences in one folder"

DATASETS: dict[str, dict[str, Any]] = {
    f"ocid_{surface}": {
        "format": "label_image",
        "labels": f"ocid/{surface}/label",
        "images": f"ocid/{surface}/rgb",
        "ignore": ignore,
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for surface, ignore in (("floor", (1,)), ("table", (1, 2)))
}
