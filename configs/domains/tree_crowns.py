"""Tree crowns (`tree_crowns_train`, `tree_crowns_val`): Mask R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.tree_crowns import dataloader
from ..common.schedule.short import lr_multiplier
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 1
# Crowns of 2 to 30 metres are 20 to 300 pixels of 10 centimetres: COCO's anchors without the largest, and one of 16.
model.proposal_generator.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
model.proposal_generator.update(pre_nms_topk=[2000, 2000], post_nms_topk=[1000, 2000])
model.roi_heads.box_predictor.test_topk_per_image = 300
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
train.update(max_iter=3000, eval_period=1000, seed=1)
train.checkpointer.period = 1000
# the linear rule: 0.02 at 16 images is 0.005 at 4
optimizer.lr = 0.005
