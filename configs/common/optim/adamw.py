"""AdamW (arXiv:1711.05101) for training from random weights on small data, where SGD learned more slowly."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

optimizer = L(torch.optim.AdamW)(
    params=L(get_default_optimizer_params)(base_lr="${..lr}", weight_decay_norm=0.0),
    lr=1e-3,
    weight_decay=0.05,
)
