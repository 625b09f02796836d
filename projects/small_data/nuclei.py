"""Cell nuclei."""

from ...configs.common.data.nuclei import dataloader
from ...configs.domains.kudzu_bugs import model
from .base import lr_multiplier, optimizer, to_slim, train

to_slim(model, channels=64)
model.roi_heads.box_predictor.test_topk_per_image = 400
model.proposal_generator.post_nms_topk = [300, 800]
dataloader.train.mapper.augmentations[0].crop_size = [192, 192]
dataloader.train.update(total_batch_size=2, num_workers=0)
dataloader.test.num_workers = 0
