"""Mask R-CNN on ViT-H (ViTDet), pre-trained by MAE: 75 epochs of COCO. Needs Detectron2's main branch."""

from .mask_rcnn_vitdet_b_100ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.net.update(embed_dim=1280, depth=32, num_heads=16, drop_path_rate=0.5)
# Every eighth block attends globally: 7, 15, 23 and 31.
model.backbone.net.window_block_indexes = [block for block in range(32) if block % 8 != 7]
optimizer.params.lr_factor_func.update(num_layers=32, rate=0.9)
optimizer.params.overrides = {}  # the weights of every parameter decay
optimizer.params.weight_decay_norm = None
train.max_iter = 138281  # the schedule is in fractions of the run
train.init_checkpoint = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_huge_p14to16.pth?matching_heuristics=True"
