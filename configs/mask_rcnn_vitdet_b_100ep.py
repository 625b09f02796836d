"""Mask R-CNN on ViT-B (ViTDet), pre-trained by MAE: 100 epochs of COCO. Needs Detectron2's main branch."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .common.data.coco_lsj import dataloader
from .common.models.mask_rcnn_vitdet import model
from .common.optim.adamw_vit import optimizer
from .common.schedule.lsj_100ep import lr_multiplier
from .common.train.default import train

dataloader.train.mapper.image_format = "RGB"
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=1024, target_width=1024),
    L(T.FixedSizeCrop)(crop_size=[1024, 1024], pad=False),  # the backbone pads to a square
]
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=1024)]

lr_multiplier.update(warmup_length=250 / 184375, warmup_factor=0.001)
train.max_iter = 184375
train.amp.enabled = True
train.ddp.fp16_compression = True
train.init_checkpoint = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_base.pth?matching_heuristics=True"
