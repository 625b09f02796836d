"""SpaceNet 2 buildings (`spacenet_buildings_train`, `spacenet_buildings_val`). ResNet-18 FPN from random weights.

Its BatchNorm normalises the range of 16-bit pixels; `maskrcnn-ext data-stats spacenet_buildings_train` prints mean and deviation.
"""

from ..common.data.spacenet import dataloader
from ..mask_rcnn_r18_fpn_scratch import lr_multiplier, model, optimizer, train

model.roi_heads.num_classes = 1
# Houses of 5 to 40 metres are 16 to 130 pixels of 0.3 metres; halls are larger.
model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [96], [192]]
model.proposal_generator.update(pre_nms_topk=[1000, 1000], post_nms_topk=[500, 1000])
model.roi_heads.box_predictor.test_topk_per_image = 300
model.roi_heads.box_pooler.sampling_ratio = model.roi_heads.mask_pooler.sampling_ratio = 2
train.update(max_iter=10000, eval_period=2500)
train.checkpointer.period = 2500
