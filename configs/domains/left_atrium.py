"""The left atrium in MR slices (`left_atrium_train`, `left_atrium_val`). ResNet-18 FPN from random weights.

Its BatchNorm normalises values without units; `maskrcnn-ext data-stats left_atrium_train` prints mean and deviation.
"""

from ..common.data.left_atrium import dataloader
from ..mask_rcnn_r18_fpn_scratch import lr_multiplier, model, optimizer, train

model.roi_heads.num_classes = 1
# 10 to 100 pixels of 320
model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [72], [96]]
model.roi_heads.box_pooler.sampling_ratio = model.roi_heads.mask_pooler.sampling_ratio = 2
train.update(max_iter=6000, eval_period=2000, seed=1)
train.checkpointer.period = 2000
