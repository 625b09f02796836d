"""Cell nuclei in microscopy: Data Science Bowl 2018, stage 1 (BBBC038v1, CC0; doi:10.1038/s41592-019-0612-7).

The challenge published no validation split: the image ids are sorted and the last fifth is held out.
"""

from __future__ import annotations

from typing import Any

CLASSES = ("nucleus",)
LAYOUT = "nuclei_dsb2018/stage1_train/<image id>/{images,masks}/*.png"


def train_ids(ids: list[str]) -> list[str]:
    """Returns the first four fifths of sorted ids."""
    return ids[: _boundary(ids)]


def val_ids(ids: list[str]) -> list[str]:
    """Returns the last fifth of sorted ids."""
    return ids[_boundary(ids) :]


def _boundary(ids: list[str]) -> int:
    return round(0.8 * len(ids))


_COMMON = {"format": "dsb2018", "images": "nuclei_dsb2018/stage1_train", "classes": CLASSES, "layout": LAYOUT}
DATASETS: dict[str, dict[str, Any]] = {
    "nuclei_train": {**_COMMON, "split": train_ids},
    "nuclei_val": {**_COMMON, "split": val_ids},
}
