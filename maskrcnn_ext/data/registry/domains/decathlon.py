"""Slices of the Medical Segmentation Decathlon (medicaldecathlon.com; arXiv:2106.05735; CC BY-SA 4.0): the spleen in CT, the left atrium
in MR.

The labels of its test volumes are not published: of the volumes with labels, sorted by name, the last fifth is held out.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.domains.held_out import BY_FILE

LAYOUT = "{task}/imagesTr/*.nii.gz and {task}/labelsTr/*.nii.gz, of equal names"
# Center and width of soft tissue on a radiologist's screen, in Hounsfield units. MR has no units: its values differ from scan to scan.
SOFT_TISSUE = (50, 400)
TASKS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "spleen": ("Task09_Spleen", SOFT_TISSUE),
    "left_atrium": ("Task02_Heart", None),
}

DATASETS: dict[str, dict[str, Any]] = {
    f"{organ}_{split}": {
        "format": "nifti",
        "images": f"{task}/imagesTr",
        "labels": f"{task}/labelsTr",
        "level": level,
        "select": select,
        "classes": (organ,),
        "layout": LAYOUT.format(task=task),
    }
    for organ, (task, level) in TASKS.items()
    for split, select in BY_FILE.items()
}
