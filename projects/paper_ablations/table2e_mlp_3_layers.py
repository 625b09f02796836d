"""Table 2e: masks by one more fully connected layer, 1024-1024-1024-80x28x28, ResNet-50 FPN."""

from .table2e_mlp_2_layers import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.mask_head.fc_dims = [1024, 1024, 1024]
