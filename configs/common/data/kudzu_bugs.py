"""Kudzu bugs at the original scale: bugs are 5 to 75 pixels wide. Crops of 256 x 256 for training, whole photographs for validation."""

from .nuclei import dataloader

dataloader.train.dataset.names = "kudzu_bugs_train"
dataloader.test.dataset.names = "kudzu_bugs_val"
dataloader.train.total_batch_size = 2
# The photographs hold up to 112 bugs: with COCO's limit of 100 detections the rest would count as missed.
dataloader.evaluator.max_dets_per_image = 200
