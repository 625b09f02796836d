"""A training script for Matterport's Mask R-CNN, whose config is read without running the script."""

SCRIPT = '''
"""Training script."""
import os, sys
import numpy as np
from mrcnn.config import Config
from mrcnn import model as modellib

raise SystemExit("executed")
ROOT_DIR = os.path.abspath("..")
VAL_IDS = ["a", "b", "c", "d"]

class NucleusConfig(Config):
    """Doc."""
    NAME = "nucleus"
    IMAGES_PER_GPU: int = 6
    NUM_CLASSES = 1 + 3
    STEPS_PER_EPOCH = (657 - len(VAL_IDS)) // IMAGES_PER_GPU
    VALIDATION_STEPS = max(1, len(VAL_IDS) // IMAGES_PER_GPU)
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 2 ** 7)
    MEAN_PIXEL = np.array([43.53, 39.56, 48.22])
    LOSS_WEIGHTS = {"rpn_class_loss": 2., "mrcnn_mask_loss": 0.5}
    DETECTION_MIN_CONFIDENCE = 0
    LEARNING_RATE = -(-1e-3)
    OUR_OWN = 5
    OUR_PATH = os.path.join(ROOT_DIR, "logs")
    lower = 3

    def method(self):
        self.X = 1

class InferenceConfig(NucleusConfig):
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"

class Dataset(object):
    NUM_CLASSES = 99
'''
