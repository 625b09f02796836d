"""CrowdPose: people in crowds with 14 keypoints, with the augmentations of COCO's people."""

from maskrcnn_ext.data.registry.domains.crowdpose import SIGMAS

from .coco_keypoint import dataloader

dataloader.train.dataset.names = "crowdpose_train"
dataloader.test.dataset.names = "crowdpose_val"
dataloader.evaluator.kpt_oks_sigmas = list(SIGMAS)  # Detectron2's evaluator does not read them from the registration
