"""Mask R-CNN on ViT-L (ViTDet), pre-trained by MAE: 100 epochs of COCO. Needs Detectron2's main branch."""

from .mask_rcnn_vitdet_b_100ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.net.update(embed_dim=1024, depth=24, num_heads=16, drop_path_rate=0.4)
# Every sixth block attends globally: 5, 11, 17 and 23.
model.backbone.net.window_block_indexes = [block for block in range(24) if block % 6 != 5]
optimizer.params.lr_factor_func.update(num_layers=24, rate=0.8)
train.init_checkpoint = "detectron2://ImageNetPretrained/MAE/mae_pretrain_vit_large.pth?matching_heuristics=True"
