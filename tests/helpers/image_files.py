"""Random images, and the reading of a file by its path."""

import numpy as np

from maskrcnn_ext.data.images.pixels import read_pixels

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (24, 32, 3), dtype=np.uint16)


def read_file(path, image_format="raw", **record):
    return read_pixels({"file_name": str(path), **record}, image_format)
