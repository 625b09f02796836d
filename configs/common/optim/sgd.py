"""SGD of the COCO baselines (Detectron2's Base-RCNN-FPN.yaml): lr 0.02 at 16 images, momentum 0.9, decay 1e-4, none on norms."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver.build import get_default_optimizer_params

optimizer = L(torch.optim.SGD)(
    # `params.model` is set by the training script.
    params=L(get_default_optimizer_params)(base_lr="${..lr}", weight_decay_norm=0.0),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)
