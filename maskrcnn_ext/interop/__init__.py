"""Imports weights of other frameworks, and exports models to other runtimes."""

from maskrcnn_ext.common.moved import forward

__getattr__ = forward(__name__)
