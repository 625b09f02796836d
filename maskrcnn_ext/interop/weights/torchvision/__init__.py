"""Checkpoints of torchvision's detectors."""
