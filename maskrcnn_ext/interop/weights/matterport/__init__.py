"""Imports weights of Matterport's Keras Mask R-CNN."""
