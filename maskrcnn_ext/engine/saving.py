"""The path of :mod:`maskrcnn_ext.config.config_yaml` in version 0.1.0, which saved configs with lambdas name."""

from maskrcnn_ext.common.moved import forward

__getattr__ = forward(__name__)
