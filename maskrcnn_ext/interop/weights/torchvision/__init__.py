"""Imports checkpoints of torchvision's detectors."""
