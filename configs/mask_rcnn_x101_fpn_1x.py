"""Mask R-CNN, ResNeXt-101-32x8d FPN: 12 epochs of COCO (90 000 iterations of 16 images)."""

from detectron2.config import LazyCall as L

from maskrcnn_ext.modeling.resnet_stages import make_bottleneck_stages

from .mask_rcnn_r50_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

# Weights trained by Caffe2: the stride is in the 3x3 convolution and the input is divided by ImageNet's deviation.
model.backbone.bottom_up.stages = L(make_bottleneck_stages)(
    depth=101, num_groups=32, width_per_group=8, stride_in_1x1=False, norm="FrozenBN"
)
model.pixel_std = [57.375, 57.12, 58.395]
train.init_checkpoint = "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"
