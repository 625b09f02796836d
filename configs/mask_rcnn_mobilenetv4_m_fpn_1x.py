"""Mask R-CNN, MobileNetV4-Conv-M and a slim FPN from ImageNet-1k weights: 12 epochs of COCO. Needs timm."""

from .mask_rcnn_efficientnet_lite0_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.update(name="mobilenetv4_conv_medium.e500_r256_in1k", pretrained=True)
