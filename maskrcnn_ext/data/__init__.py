"""Data sets: formats on disk, named domains, and the catalogue that registers them with Detectron2."""

from maskrcnn_ext.common.moved import forward
from maskrcnn_ext.data.registry.catalog import get_dataset_dicts, register

__all__ = ["get_dataset_dicts", "register"]

__getattr__ = forward(__name__)
