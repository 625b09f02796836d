"""Penn-Fudan pedestrians (`penn_fudan_train`, `penn_fudan_val`): Mask R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.penn_fudan import dataloader
from ..common.schedule.short import lr_multiplier
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 1
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
# 136 images x 10 epochs / 2 images an iteration = 680
train.update(max_iter=680, eval_period=340, seed=1)
train.checkpointer.period = 340
# the linear rule: 0.02 at 16 images is 0.0025 at 2
optimizer.lr = 0.0025
