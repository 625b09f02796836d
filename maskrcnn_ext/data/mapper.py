"""The path of :mod:`maskrcnn_ext.data.mapping.mapper` in version 0.1.0."""

from maskrcnn_ext.common.moved import forward

__getattr__ = forward(__name__)
