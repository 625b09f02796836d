"""From dataset dicts to training samples: mappers, ground truth, augmentation and samplers."""
