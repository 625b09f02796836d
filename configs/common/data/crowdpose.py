"""CrowdPose: people in crowds with 14 keypoints, prepared as COCO's people are."""

from .coco_keypoint import dataloader

dataloader.train.dataset.names = "crowdpose_train"
dataloader.test.dataset.names = "crowdpose_val"
# How far apart annotators are at each keypoint, relative to the person's size: COCO's for the twelve joints, and 0.079 for head and neck.
dataloader.evaluator.kpt_oks_sigmas = [
    *[0.079, 0.079, 0.072, 0.072, 0.062, 0.062],
    *[0.107, 0.107, 0.087, 0.087, 0.089, 0.089],
    *[0.079, 0.079],
]
