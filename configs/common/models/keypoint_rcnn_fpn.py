"""Keypoint R-CNN on a feature pyramid: people, COCO's 17 keypoints, no masks."""

from .mask_keypoint_rcnn_fpn import model

del model.roi_heads["mask_in_features"], model.roi_heads["mask_pooler"], model.roi_heads["mask_head"]
