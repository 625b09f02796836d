"""Generated shapes, five classes, the data of `scripts/demo.sh`. ResNet-18 FPN from random weights, minutes on a CPU."""

from ..common.data.shapes import dataloader
from ..mask_rcnn_r18_fpn_scratch import lr_multiplier, model, optimizer, train

model.roi_heads.num_classes = 5
# Objects of 10 to 60 pixels, six at most: narrow layers and few RoIs suffice and keep an iteration on a CPU short.
model.proposal_generator.anchor_generator.sizes = [[12], [24], [48], [72], [96]]
model.proposal_generator.update(pre_nms_topk=[600, 200], post_nms_topk=[300, 100])
model.backbone.out_channels = 64
model.roi_heads.batch_size_per_image = 48
model.roi_heads.mask_head.conv_dims = [64, 64, 64, 64, 64]
model.roi_heads.box_pooler.sampling_ratio = model.roi_heads.mask_pooler.sampling_ratio = 1

optimizer.lr = 2e-3
train.update(max_iter=540, eval_period=270, seed=1)
train.checkpointer.period = 270
