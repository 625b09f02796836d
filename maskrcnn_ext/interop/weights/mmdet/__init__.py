"""Imports checkpoints of MMDetection."""
