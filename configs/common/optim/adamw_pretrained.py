"""AdamW for pretrained networks of timm: lr 1e-4 at 16 images, decay 0.05, none on norms and position embeddings (arXiv:2103.14030).

A variant sets the layer-wise decay of the learning rate.
"""

import torch
from detectron2.config import LazyCall as L

from maskrcnn_ext import layer_decay_params

optimizer = L(torch.optim.AdamW)(
    params=L(layer_decay_params)(
        base_lr="${..lr}",
        weight_decay_norm=0.0,
        overrides={
            name: {"weight_decay": 0.0} for name in ("relative_position_bias_table", "pos_embed", "cls_token", "gamma")
        },
        decay_rate=1.0,
    ),
    lr=1e-4,
    betas=[0.9, 0.999],
    weight_decay=0.05,
)
