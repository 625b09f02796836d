"""Weights of other frameworks in, models for other runtimes out."""

from maskrcnn_ext.common.moved import forward

__getattr__ = forward(__name__)
