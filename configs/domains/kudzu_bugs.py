"""Kudzu bugs (`kudzu_bugs_train`, `kudzu_bugs_val`): EfficientNet-Lite0 FPN from ImageNet weights."""

from ..common.data.kudzu_bugs import dataloader
from ..mask_rcnn_efficientnet_lite0_fpn_finetune import lr_multiplier, model, optimizer, train

model.roi_heads.num_classes = 1
model.proposal_generator.anchor_generator.sizes = [[8], [16], [32], [64], [128]]
model.roi_heads.box_predictor.test_topk_per_image = 200
model.proposal_generator.update(pre_nms_topk=[1000, 1000], post_nms_topk=[300, 400])

train.seed = 1
