"""Mask R-CNN on res4 ("C4"): boxes and masks share res5 as their head. Hyper-parameters of Detectron2's Base-RCNN-C4.yaml."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import ResNet
from detectron2.modeling.backbone import BasicStem, BottleneckBlock
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, MaskRCNNConvUpsampleHead, Res5ROIHeads

from .mask_rcnn_fpn import model

model.backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
    out_features=["res4"],
    freeze_at=2,
)
model.proposal_generator.in_features = ["res4"]
model.proposal_generator.head.update(in_channels=1024, num_anchors=15)
model.proposal_generator.anchor_generator.update(sizes=[[32, 64, 128, 256, 512]], strides=[16])
model.proposal_generator.update(pre_nms_topk=[12000, 6000], post_nms_topk=[2000, 1000])
model.roi_heads = L(Res5ROIHeads)(
    num_classes=80,
    batch_size_per_image=512,
    positive_fraction=0.25,
    proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
    in_features=["res4"],
    pooler=L(ROIPooler)(output_size=14, scales=[1 / 16], sampling_ratio=0, pooler_type="ROIAlignV2"),
    res5=L(ResNet.make_stage)(
        block_class=BottleneckBlock,
        num_blocks=3,
        stride_per_block=[2, 1, 1],
        in_channels=1024,
        bottleneck_channels=512,
        out_channels=2048,
        norm="FrozenBN",
        stride_in_1x1=True,
    ),
    box_predictor=L(FastRCNNOutputLayers)(
        input_shape=L(ShapeSpec)(channels="${...res5.out_channels}", height=1, width=1),
        test_score_thresh=0.05,
        box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
        num_classes="${..num_classes}",
    ),
    mask_head=L(MaskRCNNConvUpsampleHead)(
        # res5 halves the pooler's output size
        input_shape=L(ShapeSpec)(channels="${...res5.out_channels}", height=7, width=7),
        num_classes="${..num_classes}",
        conv_dims=[256],  # only the deconvolution
    ),
)
