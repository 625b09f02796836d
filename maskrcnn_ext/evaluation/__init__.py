"""Metrics of boxes, masks and keypoints."""
