"""The kinds of files that predictions can be saved as.

Each kind is a function of a :class:`maskrcnn_ext.inference.outputs.predicted_image.PredictedImage` that returns the contents of files by
file name; the name starts with that of the input image. The job writes the files. Objects are drawn in the order of their scores, the
highest on top.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage

# Kind, which is also the name of its function -> the module of the function.
OUTPUTS = {
    "overlays": "overlays",  # PNG: the image with masks, boxes, labels and keypoints on it
    "splash": "images",  # PNG: the image in grey, the objects in colour
    "crops": "images",  # PNG: the box of each object
    "cutouts": "images",  # PNG: the box of each object, transparent outside its mask
    "polygons": "polygons",  # GeoJSON: outlines with holes; in map coordinates if the image is georeferenced
    "geopackage": "polygons",  # GPKG: the same, of georeferenced images
    "table": "table",  # CSV: class, score, place, size, shape and intensity of each object
    "labels": "images",  # 16-bit PNG: 0 outside of objects, else the object's number from 1, the highest score first
}

# Kinds whose files are one for each object, in a folder with the name of the image.
OBJECT_OUTPUTS = ("crops", "cutouts")


class Output(Protocol):
    """Returns the contents of the files of one kind, by file name."""

    def __call__(self, predicted: PredictedImage) -> dict[str, bytes]: ...


def find_output(kind: str) -> Output:
    """Returns the function that makes a kind of output.

    Raises:
        InputError: the kind is unknown.

    Example:
        >>> find_output("crops").__name__
        'crops'
    """
    if kind not in OUTPUTS:
        raise InputError(f"output {kind!r} is unknown: expected some of {', '.join(OUTPUTS)}")
    output: Output = getattr(import_module(f"{__name__}.{OUTPUTS[kind]}"), kind)
    return output
