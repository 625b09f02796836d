"""Predicted images for tests of outputs: three objects on random pixels."""

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util

from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage
from maskrcnn_ext.inference.sources import InputImage
from maskrcnn_ext.ops.rle_masks import RLEMasks

HEIGHT, WIDTH = 40, 60

# In the predictions of a job.
JOB_MASK = np.zeros((40, 60), bool)
JOB_MASK[5:15, 10:30] = True
JOB_MASK[7, 12] = False


CLASSES = Classes(("cat/dog", "b"), (1, 2))


def instances(masks, boxes=None):
    """Objects, highest score first, of masks (R, H, W)."""
    masks = np.asarray(masks, dtype=np.uint8)
    found = Instances(masks.shape[1:])
    found.pred_masks = RLEMasks([mask_util.encode(np.asfortranarray(mask)) for mask in masks], masks.shape[1:])
    found.pred_boxes = Boxes(found.pred_masks.boxes() if boxes is None else torch.tensor(boxes))
    found.scores = torch.linspace(0.9, 0.6, len(masks))
    found.pred_classes = torch.arange(len(masks)) % 2
    return found


def predicted(found, image, file="a/b.png"):
    return PredictedImage(
        InputImage("key", "a/b", 1, {"file_name": str(file)}, str(file)), found, CLASSES, lambda: image
    )


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def only(files, name):
    assert list(files) == [name]
    return files[name]
