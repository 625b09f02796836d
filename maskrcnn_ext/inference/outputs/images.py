"""Outputs made of an image's own pixels (colour splash, crops, cutouts), and label images."""

from __future__ import annotations

import cv2
import numpy as np

from maskrcnn_ext.common.files import shorten_name
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage, encode_png

# Bytes of a class name in a file name of at most 255.
_LONGEST_NAME = 200


def splash(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns the image with the objects in colour and all else in grey."""
    grey = cv2.cvtColor(cv2.cvtColor(predicted.image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    for window in predicted.masks():
        inside = window.mask > 0
        window.crop(grey)[inside] = window.crop(predicted.image)[inside]
    return {f"{predicted.item.name}.png": encode_png(grey)}


def crops(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns one picture per object, its box; the file is named by the object's number (the highest score first), class and score."""
    windows = zip(_object_file_names(predicted), predicted.box_windows(), strict=True)
    return {name: encode_png(window.crop(predicted.image)) for name, window in windows if window.mask.size}


def cutouts(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns one picture per object as :func:`crops` does, transparent outside the mask."""
    windows = zip(_object_file_names(predicted), predicted.box_windows(), strict=True)
    return {
        name: encode_png(np.dstack([window.crop(predicted.image), window.mask * 255]))
        for name, window in windows
        if window.mask.size
    }


def labels(predicted: PredictedImage) -> dict[str, bytes]:
    """Returns an image of object numbers: 0 outside of objects, 1 for the object of the highest score, which is on top.

    The numbers are those of the GeoJSON's features, the crops and the cutouts; the number of an object that others hide completely does
    not occur. The file is a PNG of 16 bits, or a TIFF of 32 bits if there are too many objects.
    """
    numbers = np.zeros(predicted.instances.image_size, np.uint16 if len(predicted.instances) < 2**16 else np.int32)
    windows = list(predicted.masks())
    for number in range(len(windows), 0, -1):
        windows[number - 1].crop(numbers)[windows[number - 1].mask > 0] = number
    if numbers.dtype == np.uint16:
        return {f"{predicted.item.name}.png": encode_png(numbers)}
    return {f"{predicted.item.name}.tif": cv2.imencode(".tif", numbers)[1].tobytes()}


def _object_file_names(predicted: PredictedImage) -> list[str]:
    digits = max(3, len(str(len(predicted.instances))))
    names = ["".join(letter if letter.isalnum() else "_" for letter in name) for name in predicted.names]
    return [
        f"{predicted.item.name}/{number:0{digits}}_{shorten_name(name, _LONGEST_NAME)}_{score:.2f}.png"
        for number, (name, score) in enumerate(zip(names, predicted.instances.scores.tolist(), strict=True), start=1)
    ]
