"""Measures a data set for the choice of a training: its objects from the records, its images from their headers and a sample of pixels."""

from maskrcnn_ext.data.fingerprint.data_set import Fingerprint, fingerprint
from maskrcnn_ext.data.fingerprint.images import ImageFigures
from maskrcnn_ext.data.fingerprint.objects import ObjectFigures

__all__ = ["Fingerprint", "ImageFigures", "ObjectFigures", "fingerprint"]
