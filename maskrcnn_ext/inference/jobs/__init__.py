"""Prediction of many images: in batches, continued after a kill, with every output. :mod:`maskrcnn_ext.inference` describes the path."""
