"""The path of :mod:`maskrcnn_ext.data.registry.catalog` in version 0.1.0."""

from maskrcnn_ext.common.moved import forward

__getattr__ = forward(__name__)
