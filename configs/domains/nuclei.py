"""Cell nuclei (`nuclei_train`, `nuclei_val`; Data Science Bowl 2018). ResNet-18 FPN from random weights, small enough for a CPU."""

from ..common.data.nuclei import dataloader
from ..mask_rcnn_r18_fpn_scratch import lr_multiplier, model, optimizer, train

model.roi_heads.num_classes = 1
# Nuclei are 5 to 100 pixels wide and round.
model.proposal_generator.anchor_generator.sizes = [[8], [16], [32], [64], [96]]
model.roi_heads.box_predictor.test_topk_per_image = 400
model.proposal_generator.update(pre_nms_topk=[1000, 1000], post_nms_topk=[500, 1000])
model.roi_heads.box_pooler.sampling_ratio = model.roi_heads.mask_pooler.sampling_ratio = 2

train.update(max_iter=1500, eval_period=500, seed=1)
train.checkpointer.period = 500
