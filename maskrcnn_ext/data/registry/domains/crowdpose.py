"""CrowdPose (arXiv:1812.00324): people in crowds with 14 keypoints, boxes and no masks; with the official split."""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.data.registry.keypoints import Skeleton

CLASSES = ("person",)
# In the order of the JSON files. A horizontal flip exchanges left and right.
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
# The spread of annotators at each keypoint (OKS): COCO's for the twelve joints, and 0.079 for head and neck.
SIGMAS = (0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079)
# The `skeleton` in the JSON files is copied from COCO, whose keypoints differ, so it is replaced.
LINKS = (
    ("head", "neck"),
    *(("neck", f"{side}_shoulder") for side in ("left", "right")),
    *((f"{side}_shoulder", f"{side}_elbow") for side in ("left", "right")),
    *((f"{side}_elbow", f"{side}_wrist") for side in ("left", "right")),
    *((f"{side}_shoulder", f"{side}_hip") for side in ("left", "right")),
    ("left_hip", "right_hip"),
    *((f"{side}_hip", f"{side}_knee") for side in ("left", "right")),
    *((f"{side}_knee", f"{side}_ankle") for side in ("left", "right")),
)
LAYOUT = "crowdpose/json/crowdpose_{train,val,test}.json and crowdpose/images/*.jpg"

DATASETS: dict[str, dict[str, Any]] = {
    f"crowdpose_{split}": {
        "format": "coco",
        "json": f"crowdpose/json/crowdpose_{split}.json",
        "images": "crowdpose/images",
        "classes": CLASSES,
        "layout": LAYOUT,
        "skeleton": Skeleton(KEYPOINTS, sigmas=SIGMAS, links=LINKS),
    }
    for split in ("train", "val", "test")
}
