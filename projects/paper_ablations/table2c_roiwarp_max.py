"""Table 2c: RoIWarp with the maximum of a bin's samples, ResNet-50 C4."""

from .table2c_roiwarp_average import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.pooler.aggregate = "max"
