"""Kudzu bugs: photographs of 768 x 576 pixels with bugs of 4 to 366 pixels, at varying scales. Validation uses whole photographs."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .nuclei import dataloader

dataloader.train.dataset.names = "kudzu_bugs_train"
dataloader.test.dataset.names = "kudzu_bugs_val"
augmentations = dataloader.train.mapper.augmentations
augmentations.insert(0, L(T.ResizeShortestEdge)(short_edge_length=[432, 864], sample_style="range", max_size=1500))
augmentations[1].crop_size = [320, 320]
dataloader.train.total_batch_size = 2
# The photographs hold up to 112 bugs: with COCO's limit of 100 detections the rest would count as missed.
dataloader.evaluator.max_dets_per_image = 200
