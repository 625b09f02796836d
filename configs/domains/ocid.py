"""OCID (`ocid_floor`, `ocid_table`, one class of objects): Mask R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.ocid import dataloader
from ..common.schedule.short import lr_multiplier
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

# One class: a gripper needs outlines, also of unknown objects.
model.roi_heads.num_classes = 1
# 30 to 300 pixels at 480: COCO's largest anchor exceeds the image.
model.proposal_generator.anchor_generator.sizes = [[24], [48], [96], [192], [384]]
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
# neighbouring frames of a sequence are similar, so few epochs suffice
train.update(max_iter=3000, eval_period=1000)
train.checkpointer.period = 1000
# the linear rule: 0.02 at 16 images is 0.005 at 4
optimizer.lr = 0.005
