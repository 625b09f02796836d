"""Masks and keypoints together (Mask R-CNN, arXiv:1703.06870, section 5): people, COCO's 17 keypoints.

The keypoint branch has the hyper-parameters of Detectron2's COCO-Keypoints/Base-Keypoint-RCNN-FPN.yaml.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import KRCNNConvDeconvUpsampleHead

from .mask_rcnn_fpn import model

model.roi_heads.update(
    num_classes=1,
    keypoint_in_features=["p2", "p3", "p4", "p5"],
    keypoint_pooler=L(ROIPooler)(
        output_size=14, scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32], sampling_ratio=0, pooler_type="ROIAlignV2"
    ),
    keypoint_head=L(KRCNNConvDeconvUpsampleHead)(
        input_shape=L(ShapeSpec)(channels="${....backbone.out_channels}", height=14, width=14),
        num_keypoints=17,
        conv_dims=[512] * 8,
        loss_normalizer="visible",
    ),
)
# Detectron used 2000 proposals for a batch of two images; per image, 1000 were too few for the boxes and 1500 enough.
model.proposal_generator.post_nms_topk = [1500, 1000]
# Plain L1 raises box AP and lowers keypoint AP.
model.roi_heads.box_predictor.smooth_l1_beta = 0.5
