"""CrowdPose (`crowdpose_train`, `crowdpose_val`), 14 keypoints: Keypoint R-CNN R50 FPN fine-tuned from COCO's people."""

from maskrcnn_ext.data.registry.domains.crowdpose import KEYPOINTS

from ..common.data.crowdpose import dataloader
from ..common.schedule.short import lr_multiplier
from ..keypoint_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.keypoint_head.num_keypoints = len(KEYPOINTS)
# In a crowd, boxes of different people overlap by more than the usual suppression threshold of 0.5.
model.roi_heads.box_predictor.test_nms_thresh = 0.6
# Detectron2's keypoint_rcnn_R_50_FPN_3x; its keypoint layer has 17 keypoints and is newly initialised.
train.init_checkpoint = "detectron2://COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x/137849621/model_final_a6e10b.pkl"
# 10 000 images x 12 epochs / 16 images an iteration = 7500
train.update(max_iter=7500, eval_period=2500)
train.checkpointer.period = 2500
