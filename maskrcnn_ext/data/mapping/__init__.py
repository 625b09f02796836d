"""Converts dataset dicts to training samples: mappers, ground truth, augmentation, tiles and samplers."""
