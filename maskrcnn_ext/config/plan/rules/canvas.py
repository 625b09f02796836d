"""Chooses the scale that the network sees images at, whole or as crops, and the tiles of images that are too large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrcnn_ext.config.plan.choice import Call, Choice
from maskrcnn_ext.config.plan.machine import Machine
from maskrcnn_ext.config.plan.situation import Situation
from maskrcnn_ext.data.check.anchors import resize_scales
from maskrcnn_ext.data.fingerprint import Fingerprint

TRANSFORMS = "detectron2.data.transforms"
_STRIDE = 32  # of the last level of the backbone: input sizes are multiples of it
_JITTER = (0.8, 1.25)  # of the scale in training
_WIDE_JITTER = (0.75, 1.5)  # if objects to train and to validate on differ in size
_SAME = 1.3  # factor between their sizes up to which they count as equal
_FEWEST_TO_COMPARE = 20  # objects
_CHANCE = 2.0  # standard errors by which medians differ by chance
_MEDIAN_ERROR = 1.25  # standard error of the median of a normal distribution, relative to that of the mean
_MOST_ENLARGEMENT = 2.5  # more adds no information
_SMALL_OBJECT = 20.0  # pixels that the smallest tenth of the objects should keep when images are reduced
_SIZES_DIFFER = 1.5  # factor between the larger and the smaller images
_KEPT_SCALES = (0.75, 1.5)  # between which images of several sizes but one magnification are not resized
_CROP_OBJECTS = 4  # a crop is this many times as wide as a large object
_CROP_GAIN = 0.6  # a crop as large as this share of an image is not worth it
_OBJECTS_IN_CROP = 4.0  # on average, for which crops grow
_MOST_CROP_GROWTH = 1.5
_FEWEST_IN_CROP = 0.5  # objects in a crop, on average, below which most crops would be empty
_LARGE = 25_000_000  # pixels; larger images are cut into tiles


@dataclass(frozen=True)
class _Limits:
    """Pixels that a machine can afford.

    Attributes:
        short_edge: longest shorter side of a whole image.
        crop: smallest crop.
        comfortable: side of the median object that is enough; images are reduced to it.
        least: side of the median object below which images are enlarged.
        least_edge: shorter side below which images are not reduced.
    """

    short_edge: int
    crop: int
    comfortable: float
    least: float
    least_edge: int


_CPU = _Limits(short_edge=512, crop=256, comfortable=64.0, least=24.0, least_edge=256)
_GPU = _Limits(short_edge=1024, crop=512, comfortable=96.0, least=40.0, least_edge=640)


@dataclass(frozen=True)
class Canvas:
    """What the network sees.

    Attributes:
        scale: of the images at inference.
        factors: smallest and largest scale in training, relative to `scale`.
        train_edge: shorter side of the images to train on at `scale`; 0 if images keep their own sizes, which differ.
        val_edge: shorter side of the images at inference; 0 if they keep their own sizes.
        crop: side of the crops in pixels of the network's input; 0 for whole images.
        pixels: of an input in training, roughly.
    """

    scale: float
    factors: tuple[float, float]
    train_edge: float
    val_edge: float
    crop: int
    pixels: float

    def boxes(self, train: Fingerprint, val: Fingerprint) -> np.ndarray:
        """Returns boxes (N, 4) float64 in pixels of the network's input: of training at its scales, and of validation."""
        middle = math.sqrt(self.factors[0] * self.factors[1])
        edges = [self.train_edge * factor for factor in (self.factors[0], middle, self.factors[1])]
        return np.concatenate([*(_scaled_boxes(train, edge) for edge in edges), _scaled_boxes(val, self.val_edge)])


def _scaled_boxes(data: Fingerprint, edge: float) -> np.ndarray:
    return data.objects.boxes * _scales(data.objects.image_sizes, edge)[:, None]


def choose_canvas(situation: Situation) -> tuple[Canvas, Choice]:
    """Returns the canvas and its choice."""
    train, val = situation.train, situation.val
    limits = _GPU if situation.machine.has_gpu else _CPU
    magnified = _have_one_magnification(train, val)
    differs = _differs(train, val, magnified)
    # The scale fits the images that the model will see. Training does not make up for the difference: enlarged objects are not large ones.
    fitted = val if differs else train
    scale, why = _scale(fitted, limits)
    low, high = factors = _WIDE_JITTER if differs else _JITTER
    resizes = _are_resized(scale, magnified)
    if not resizes:
        scale, factors = 1.0, (1.0, 1.0)

    def edge(data: Fingerprint, scale: float) -> float:
        return (data if magnified else fitted).images.short * scale if resizes else 0.0

    middle = edge(train, scale * math.sqrt(factors[0] * factors[1]))
    sizes = input_sizes(train, middle)
    crop = _crop(train, middle, sizes, limits)
    if scale < 1 and not differs:
        # Reduced images have detail to spare: as in Detectron2's configs, inference uses the largest scale of the training.
        largest = min(1.0, scale * high)
        factors = low * scale / largest, high * scale / largest
        scale = largest
    seen = np.minimum(sizes, crop) if crop else sizes
    # Images that all have this side are not resized.
    val_edge = edge(val, scale)
    if (val.images.sizes.min(axis=1) == val_edge).all():
        val_edge = 0.0
    canvas = Canvas(scale, factors, edge(train, scale), val_edge, crop, _mean_area(seen))
    reasons = [why]
    if differs:
        scales = f", hence scales of {factors[0]:g} to {factors[1]:g}" if resizes else ""
        zoom = 1.0 if magnified else fitted.images.short / train.images.short
        reasons.append(f"{train.objects.side(0.5) * zoom:.0f} in training{', resized alike' * (zoom != 1)}{scales}")
    if not resizes:
        reasons.append("images of several sizes have one magnification")
    return canvas, Choice("input", _describe(canvas), "; ".join(reasons), _settings(canvas, situation))


def choose_tile(data: Fingerprint, machine: Machine) -> int:
    """Returns the side of the tiles in pixels that images are cut into; 0 if they are small enough.

    Images are cut if they are too large to be read for one crop, or if most crops of them would show no object.
    """
    limits = _GPU if machine.has_gpu else _CPU
    scale, _ = _scale(data, limits)
    edge = data.images.short * scale if _are_resized(scale, _have_one_magnification(data, data)) else 0.0
    sizes = input_sizes(data, edge)
    crop = _crop(data, edge, sizes, limits)
    in_crop = data.objects.mean_labelled * min(1.0, crop**2 / _mean_area(sizes)) if crop else 1.0
    is_cut = crop and (in_crop < _FEWEST_IN_CROP or _mean_area(data.images.sizes) > _LARGE)
    return _multiple(limits.short_edge / scale) if is_cut else 0


def input_sizes(data: Fingerprint, edge: float) -> np.ndarray:
    """Returns width and height (N, 2) float64 of the images in the network's input.

    Args:
        data: the images.
        edge: the shorter side that they are resized to; 0 if they are not.
    """
    return data.images.sizes * _scales(data.images.sizes, edge)[:, None]


def _scales(sizes: np.ndarray, edge: float) -> np.ndarray:
    """Returns the factors (N) that images of (N, 2) sides are resized by."""
    return resize_scales(sizes.astype(np.float64), round(edge), 10**6) if edge else np.ones(len(sizes))


def _mean_area(sizes: np.ndarray) -> float:
    """Returns the mean number of pixels of images (N, 2)."""
    return float(sizes.astype(np.float64).prod(axis=1).mean())


def resizing(canvas: Canvas, data: Fingerprint) -> list[Call]:
    """Returns the augmentations of training that resize and crop."""
    calls = []
    if canvas.train_edge:
        edges = _edges(canvas)
        most = math.ceil(edges[1] * data.images.long / data.images.short)
        if canvas.crop:
            calls.append(_resize(edges, most, "range"))
        else:
            step = max(_STRIDE, (edges[1] - edges[0]) // 5 // _STRIDE * _STRIDE)
            calls.append(_resize([*range(edges[0], edges[1] + 1, step)], most, "choice"))
    if canvas.crop:
        size = [canvas.crop, canvas.crop]
        calls.append(Call(f"{TRANSFORMS}.RandomCrop", {"crop_type": "absolute", "crop_size": size}))
    return calls


def _edges(canvas: Canvas) -> list[int]:
    """Returns the smallest and the largest shorter side of the images to train on."""
    return [_multiple(canvas.train_edge * factor) for factor in canvas.factors]


def _resize(edges: list[int], most: int, style: str) -> Call:
    return Call(
        f"{TRANSFORMS}.ResizeShortestEdge", {"short_edge_length": edges, "sample_style": style, "max_size": most}
    )


def _scale(data: Fingerprint, limits: _Limits) -> tuple[float, str]:
    """Returns the scale of the images at inference, and the figure behind it."""
    median, small, short = data.objects.side(0.5), data.objects.side(0.1), data.images.short
    if not median:
        return min(1.0, limits.short_edge / short), "no objects to measure"
    why = f"80% of the objects have {small:.0f} to {data.objects.side(0.9):.0f} pixels, median {median:.0f}"
    if median < limits.least:
        return min(limits.least / median, _MOST_ENLARGEMENT), why
    needed = max(limits.comfortable / median, _SMALL_OBJECT / small, limits.least_edge / short)
    # Area hides how thin a crack or a line of text is. They are long, so that they need whole images, not crops.
    narrow = data.objects.narrow_side(0.1)
    whole = min(1.0, _SMALL_OBJECT / narrow, limits.short_edge / short)
    if whole > needed:
        return whole, f"{why}; a tenth are narrower than {narrow:.0f}"
    return min(1.0, needed), why


def _differs(train: Fingerprint, val: Fingerprint, magnified: bool) -> bool:
    """Returns whether objects to train and to validate on differ in size, by more than two parts of the same data do by chance.

    Args:
        train: to train on.
        val: to validate on.
        magnified: whether sizes in pixels are compared; otherwise those relative to the image.
    """
    if min(train.objects.total, val.objects.total) < _FEWEST_TO_COMPARE:
        return False
    sides = [_log_sides(data) if magnified else _log_relative_sides(data) for data in (train, val)]
    difference = abs(float(np.median(sides[1]) - np.median(sides[0])))
    # Objects of one image are alike, so that images count.
    variance = sum(
        float(np.var(found)) / data.objects.num_labelled for found, data in zip(sides, (train, val), strict=True)
    )
    return difference > max(math.log(_SAME), _CHANCE * _MEDIAN_ERROR * math.sqrt(variance))


def _log_sides(data: Fingerprint) -> np.ndarray:
    return np.log(np.maximum(data.objects.sides, 1e-3))


def _log_relative_sides(data: Fingerprint) -> np.ndarray:
    return _log_sides(data) - np.log(data.objects.image_sizes.min(axis=1))


def _have_one_magnification(train: Fingerprint, val: Fingerprint) -> bool:
    """Returns whether images of several sizes show objects of one size in pixels, as one microscope or one camera height does.

    Photographs of several sizes show objects of one size relative to the image instead.
    """
    shorts = [np.quantile(data.images.sizes.min(axis=1), (0.1, 0.9)) for data in (train, val)]
    if np.max(shorts) < _SIZES_DIFFER * np.min(shorts) or not train.objects.total:
        return False
    in_pixels, relative = (
        float(np.std(np.concatenate([log_sides(data) for data in (train, val)])))
        for log_sides in (_log_sides, _log_relative_sides)
    )
    return in_pixels < relative


def _are_resized(scale: float, magnified: bool) -> bool:
    """Returns whether images are resized to one shorter side; others of one magnification are shown as they are."""
    return not (magnified and _KEPT_SCALES[0] < scale < _KEPT_SCALES[1])


def _crop(data: Fingerprint, edge: float, sizes: np.ndarray, limits: _Limits) -> int:
    """Returns the side of a crop that is much smaller than the images but large for the objects and has several; 0 for whole images.

    Args:
        data: the objects.
        edge: the shorter side that the images are resized to; 0 if they are not.
        sizes: of the images (N, 2) in the network's input.
        limits: of the machine.
    """
    short, long = (float(np.quantile(side, 0.9)) for side in (sizes.min(axis=1), sizes.max(axis=1)))
    objects = data.objects.sides * _scales(data.objects.image_sizes, edge)
    large = float(np.quantile(objects, 0.75)) if len(objects) else 0.0
    wanted = max(limits.crop, _multiple(_CROP_OBJECTS * large))
    if wanted <= _CROP_GAIN * short:
        area_an_object = _mean_area(sizes) / max(1e-9, data.objects.mean_labelled)
        grown = min(math.sqrt(_OBJECTS_IN_CROP * area_an_object), _MOST_CROP_GROWTH * wanted, _CROP_GAIN * short)
        return min(max(wanted, math.ceil(grown / _STRIDE) * _STRIDE), limits.short_edge)
    too_large = short > limits.short_edge * _JITTER[1] or long > 3 * limits.short_edge
    return limits.short_edge if too_large else 0


def _multiple(side: float) -> int:
    return max(_STRIDE, round(side / _STRIDE) * _STRIDE)


def _describe(canvas: Canvas) -> str:
    edges = _edges(canvas)
    lower = min(canvas.crop, edges[1]) if canvas.train_edge else canvas.crop
    size = f"crops of {canvas.crop} x {lower}" if canvas.crop else "whole images"
    if not canvas.train_edge:
        return f"{size} at the original scale"
    inference = _multiple(canvas.val_edge) if canvas.val_edge else "at the original scale"
    return f"{size}, shorter side {edges[0]} to {edges[1]}, inference {inference}"


def _settings(canvas: Canvas, situation: Situation) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    test = []
    if canvas.val_edge:
        images = situation.val.images
        short = _multiple(canvas.val_edge)
        most = math.ceil(short * images.long / images.short)
        test.append(Call(f"{TRANSFORMS}.ResizeShortestEdge", {"short_edge_length": short, "max_size": most}))
    settings["dataloader.test.mapper.augmentations"] = test
    if canvas.crop and situation.has_masks:
        settings["dataloader.train.mapper.recompute_boxes"] = True
    return settings
