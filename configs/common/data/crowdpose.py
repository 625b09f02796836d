"""CrowdPose: people in crowds with 14 keypoints, prepared as COCO's people are."""

from maskrcnn_ext.data.registry.domains.crowdpose import SIGMAS

from .coco_keypoint import dataloader

dataloader.train.dataset.names = "crowdpose_train"
dataloader.test.dataset.names = "crowdpose_val"
dataloader.evaluator.kpt_oks_sigmas = list(SIGMAS)  # Detectron2's own evaluator does not look at the registration
