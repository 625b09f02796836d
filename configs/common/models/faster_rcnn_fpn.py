"""Faster R-CNN on a feature pyramid: Mask R-CNN without its mask branch."""

from .mask_rcnn_fpn import model

del model.roi_heads["mask_in_features"], model.roi_heads["mask_pooler"], model.roi_heads["mask_head"]
