"""AdamW of ViTDet-B (Detectron2 main's projects/ViTDet): lr 1e-4 at 64 images, decay 0.1, layer-wise decay 0.7."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

from maskrcnn_ext.modeling.vit import layer_decay

optimizer = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(
        base_lr="${..lr}",
        weight_decay_norm=0.0,
        lr_factor_func=L(layer_decay)(num_layers=12, rate=0.7),
        overrides={"pos_embed": {"weight_decay": 0.0}},
    ),
    lr=1e-4,
    betas=[0.9, 0.999],
    weight_decay=0.1,
)
