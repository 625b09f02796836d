"""The spleen in CT slices (`spleen_train`, `spleen_val`): Mask R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.spleen import dataloader
from ..common.schedule.short import lr_multiplier
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 1
# 20 to 170 pixels, and only a few pixels in the topmost slice: COCO's largest anchor is as large as the image.
model.proposal_generator.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
# about 800 slices with spleen x 15 epochs / 4 slices an iteration = 3000
train.update(max_iter=3000, eval_period=1000, seed=1)
train.checkpointer.period = 1000
# the linear rule: 0.02 at 16 images is 0.005 at 4
optimizer.lr = 0.005
