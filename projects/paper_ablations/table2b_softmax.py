"""Table 2b: the classes compete for every pixel (softmax), ResNet-50 C4. Its baseline with sigmoids is mask_rcnn_r50_c4_1x.py."""

from maskrcnn_ext import SoftmaxMaskHead

from ...configs.mask_rcnn_r50_c4_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.mask_head._target_ = SoftmaxMaskHead
