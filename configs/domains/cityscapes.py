"""Cityscapes (`cityscapes_train`, `cityscapes_val`): Detectron2's Cityscapes/mask_rcnn_R_50_FPN.yaml, with COCO's metrics."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from ..common.data.cityscapes import dataloader
from ..mask_rcnn_r50_fpn_3x import model, optimizer, train

model.roi_heads.num_classes = 8
train.init_checkpoint = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
# 2975 images x 64 epochs / 8 images an iteration = 24 000
train.update(max_iter=24000, eval_period=8000)
optimizer.lr = 0.01
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[18000, 24000]),
    warmup_length=1000 / 24000,
    warmup_method="linear",
    warmup_factor=0.001,
)
