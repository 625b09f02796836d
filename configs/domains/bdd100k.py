"""BDD100K instance segmentation (`bdd100k_train`, `bdd100k_val`): Mask R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.bdd100k import dataloader
from ..common.schedule.short import lr_multiplier
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 8
# Anchors from 16 pixels: at a height of 720 pixels, distant objects are smaller than COCO's smallest anchor of 32.
model.proposal_generator.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
# 7000 images x 12 epochs / 16 images an iteration = 5250
train.update(max_iter=5250, eval_period=1750)
train.checkpointer.period = 1750
