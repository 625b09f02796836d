"""Cascade Mask R-CNN (arXiv:1906.09756) on a feature pyramid.

Hyper-parameters of Detectron2's Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml.
"""

from .cascade import to_cascade
from .mask_rcnn_fpn import model

to_cascade(model)
model.proposal_generator.post_nms_topk = [2000, 1000]
