"""Mask R-CNN, ConvNeXt-T FPN from ImageNet-1k weights (arXiv:2201.03545): 37 epochs of COCO. Needs timm."""

from .common.data.coco_crop import dataloader
from .common.models.mask_rcnn_fpn import model
from .common.models.timm_backbone import to_timm
from .common.optim.adamw_pretrained import optimizer
from .common.schedule.coco import lr_multiplier_3x as lr_multiplier
from .common.train.default import train

to_timm(model, "convnext_tiny.fb_in1k", drop_path_rate=0.4, out_norms=True)
# Vectors have no weight decay, and the rate decays by layers of three blocks.
optimizer.params.update(weight_decay_bias=0.0, decay_rate=0.95, blocks_per_layer=3)
train.max_iter = 270000
train.amp.enabled = True
