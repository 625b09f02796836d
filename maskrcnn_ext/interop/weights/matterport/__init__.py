"""Weights of Matterport's Keras Mask R-CNN."""
