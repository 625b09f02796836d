"""CrowdPose (arXiv:1812.00324): people in crowds with 14 keypoints, boxes and no masks; with the official split."""

from __future__ import annotations

from typing import Any

CLASSES = ("person",)
# In the order of the files, which bring names of their own; left and right are exchanged where an image is mirrored.
KEYPOINTS = (
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "head",
    "neck",
)
LAYOUT = "crowdpose/json/crowdpose_{train,val,test}.json and crowdpose/images/*.jpg"

DATASETS: dict[str, dict[str, Any]] = {
    f"crowdpose_{split}": {
        "format": "coco",
        "json": f"crowdpose/json/crowdpose_{split}.json",
        "images": "crowdpose/images",
        "classes": CLASSES,
        "layout": LAYOUT,
    }
    for split in ("train", "val", "test")
}
