"""The path of :mod:`maskrcnn_ext.interop.export.standalone` in version 0.1.0."""
