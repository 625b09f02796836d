"""Random images, and the reading of a file by its path."""

import numpy as np
from PIL import Image

from maskrcnn_ext.data.images.pixels import read_pixels

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 32, 3), dtype=np.uint16)


def read_file(path, image_format="raw", **record):
    return read_pixels({"file_name": str(path), **record}, image_format)


def save_images(folder, images, suffix="npy"):
    """Writes arrays as NumPy files, or as images, and returns their records."""
    records = []
    for index, image in enumerate(images):
        path = folder / f"{index}.{suffix}"
        if suffix == "npy":
            np.save(path, image)
        else:
            Image.fromarray(image).save(path)
        records.append({"file_name": str(path), "height": image.shape[0], "width": image.shape[1]})
    return records
