"""The parts of Keras's Mask R-CNN (Matterport) that compute differently from Detectron2's; imported weights need them."""

from maskrcnn_ext.common.moved import forward

__getattr__ = forward(__name__)
