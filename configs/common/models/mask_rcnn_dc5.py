"""Mask R-CNN on a dilated res5 at stride 16 ("DC5"). Hyper-parameters of Detectron2's Base-RCNN-DilatedC5.yaml."""

from detectron2.config import LazyCall as L
from detectron2.modeling import ResNet
from detectron2.modeling.backbone import BasicStem

from maskrcnn_ext.modeling.resnet_stages import make_bottleneck_stages

from .mask_rcnn_fpn import model

model.backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(make_bottleneck_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN", res5_dilation=2),
    out_features=["res5"],
    freeze_at=2,
)
model.proposal_generator.in_features = ["res5"]
model.proposal_generator.head.update(in_channels=2048, num_anchors=15)
model.proposal_generator.anchor_generator.update(sizes=[[32, 64, 128, 256, 512]], strides=[16])
model.proposal_generator.update(pre_nms_topk=[12000, 6000], post_nms_topk=[2000, 1000])
model.roi_heads.update(box_in_features=["res5"], mask_in_features=["res5"])
model.roi_heads.box_pooler.scales = [1 / 16]
model.roi_heads.mask_pooler.scales = [1 / 16]
model.roi_heads.box_head.input_shape.channels = 2048
model.roi_heads.mask_head.input_shape.channels = 2048
