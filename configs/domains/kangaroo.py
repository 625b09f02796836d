"""Kangaroos (`kangaroo_train`, `kangaroo_val`), only boxes: Faster R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.kangaroo import dataloader
from ..common.schedule.short import lr_multiplier
from ..faster_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 1
# Detectron2's faster_rcnn_R_50_FPN_3x; its class layers have another size and are newly initialised.
train.init_checkpoint = "detectron2://COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458/model_final_280758.pkl"
# 131 images x 10 epochs / 2 images an iteration = 655
train.update(max_iter=660, eval_period=330, seed=1)
train.checkpointer.period = 330
# the linear rule: 0.02 at 16 images is 0.0025 at 2
optimizer.lr = 0.0025
