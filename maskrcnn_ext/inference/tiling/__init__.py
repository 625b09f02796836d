"""Prediction of images that are too large for a model: tile by tile, and the tiles' detections merged by their masks.

``predictor`` cuts an image into tiles and predicts them; ``tile_detections`` places the detections of each tile in the image;
``tile_matches`` groups those of one object; ``merge`` makes one result of each group.
"""
