"""Kernels and pure functions on tensors. They do not import Detectron2."""
