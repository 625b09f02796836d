"""Kernels and pure functions on tensors. They stand without Detectron2."""
