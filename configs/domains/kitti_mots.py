"""KITTI MOTS (`kitti_mots_train`, `kitti_mots_val`), frame by frame: Mask R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.kitti_mots import dataloader
from ..common.schedule.short import lr_multiplier
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 2
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
# 5000 frames x 5 epochs / 8 frames an iteration = 3125; neighbouring frames are similar, so few epochs suffice
train.update(max_iter=3200, eval_period=800)
train.checkpointer.period = 800
# the linear rule: 0.02 at 16 images is 0.01 at 8
optimizer.lr = 0.01
