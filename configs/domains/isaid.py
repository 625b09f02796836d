"""iSAID patches (`isaid_train`, `isaid_val`), 15 classes: Mask R-CNN R50 FPN fine-tuned from COCO."""

from ..common.data.isaid import dataloader
from ..common.schedule.short import lr_multiplier
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 15
# Half of COCO's: vehicles from above are 10 to 40 pixels long.
model.proposal_generator.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
model.proposal_generator.update(pre_nms_topk=[2000, 2000], post_nms_topk=[1000, 2000])
model.roi_heads.box_predictor.test_topk_per_image = 500
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
# about 12 epochs of the development kit's 28 000 patches, 16 an iteration
train.update(max_iter=21000, eval_period=7000)
