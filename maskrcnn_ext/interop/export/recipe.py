"""The recipe of an exported model: how an image becomes its input, and the meaning of its outputs. Reading one needs no torch."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.standalone.opencv_infer import LONGEST_EDGE
from maskrcnn_ext.ops.zero_border_resize import zero_border_resize

_LARGEST_SCALE = 64
# The entry of a model's metadata that holds the recipe as JSON.
METADATA_KEY = "maskrcnn_ext"
# The values of the fields that name a rule.
RESIZES = ("none", "pillow", "torchvision", "opencv", "matterport")
BOXES = ("detectron2", "matterport", "matterport, whole pixels")
MASKS = ("detectron2", "torchvision")


@dataclass(frozen=True)
class Recipe:
    """How an image becomes a model's input, and the meaning of the model's outputs.

    Attributes:
        image_format: order of the input's channels: "BGR", "RGB", "L" for grey, or "raw" for channels as stored.
        resize: how images are resized: "none"; "pillow", as Detectron2 does, with antialiasing; "torchvision" or "opencv", see
            :class:`maskrcnn_ext.data.mapping.augmentation.resizing.PlainResize`; "matterport", see
            :class:`maskrcnn_ext.data.mapping.augmentation.resizing.Letterbox`, for which a length of 0 means no limit.
        short_edge: length of the short side after resizing, in pixels.
        long_edge: largest length of the long side after resizing, in pixels.
        pixel_mean: mean of each channel, for pixels from 0 to 255. The model itself subtracts it, divides by `pixel_std` and pads the
            image with 0 at the right and at the bottom.
        pixel_std: standard deviation of each channel.
        size_divisibility: the padded sides are multiples of it.
        class_names: names of the classes, in the order of the outputs.
        category_ids: ids of the classes in the data set.
        keypoint_names: in the order of the outputs; empty for a model without keypoints.
        output_names: names of the model's outputs, in their order.
        score_threshold: detections have a higher score.
        nms_threshold: largest IoU of two detections of one class.
        max_detections: largest number of detections in an image.
        mask_threshold: least probability of a pasted mask's pixels.
        batched: whether the model takes N images of one size and returns the image index of each detection.
        least_scale: for "matterport", the least factor by which an image is enlarged.
        boxes: how boxes are scaled to the image: "detectron2", by the ratio of the sides; "matterport", by the ratio of the distances
            between the first and the last pixel; "matterport, whole pixels", the same, rounded.
        masks: how masks are pasted: "detectron2"; "torchvision", into boxes of whole pixels.
        quantized: whether the model computes in 8 bits, so that single detections differ from the original's.

    Example::

        recipe = open_model("model.onnx").recipe
        pixels = recipe.prepare(cv2.imread("image.jpg"))  # (C, H, W) float32
    """

    image_format: str
    resize: str
    short_edge: int
    long_edge: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    size_divisibility: int
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    keypoint_names: tuple[str, ...]
    output_names: tuple[str, ...]
    score_threshold: float
    nms_threshold: float
    max_detections: int
    mask_threshold: float = 0.5
    batched: bool = False
    least_scale: float = 0.0
    boxes: str = "detectron2"
    masks: str = "detectron2"
    quantized: bool = False

    def to_json(self) -> str:
        """Returns the recipe as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, source: object) -> Recipe:
        """Parses what :meth:`to_json` returned; error messages name `source`.

        Raises:
            InputError: the text is not a recipe.
        """
        try:
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
            }
            recipe = cls(**values)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{source}: its metadata was not written by `maskrcnn-ext export` ({first_line(error)})"
            ) from error
        for field in dataclasses.fields(cls):
            value = getattr(recipe, field.name)
            if not _fits(field, value):
                raise InputError(f"{source}: its metadata contain {field.name}={value!r:.100}: expected {field.type}")
        if len(recipe.pixel_mean) != len(recipe.pixel_std) or 0 in recipe.pixel_std:
            raise InputError(f"{source}: its metadata contain a pixel_std that is 0 or does not fit pixel_mean")
        for name, known in {"resize": RESIZES, "boxes": BOXES, "masks": MASKS}.items():
            if getattr(recipe, name) not in known:
                raise InputError(
                    f"{source}: its metadata contain {name}={getattr(recipe, name)!r}: expected {', '.join(known)}"
                )
        return recipe

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Returns the model's input for an image.

        Args:
            image: (H, W, 3) in OpenCV's order blue, green, red; for "L" and "raw" (H, W) or (H, W, C) as in training.

        Returns:
            (C, H', W') float32.

        Raises:
            InputError: the number of channels differs from the model's.
        """
        if image.ndim == 2:
            image = image[:, :, None]
        if image.shape[2] != len(self.pixel_mean):
            raise InputError(
                f"the image has {image.shape[2]} channels, and the model takes {len(self.pixel_mean)} ({self.image_format})"
            )
        if self.image_format == "RGB":
            image = image[:, :, ::-1]
        return np.ascontiguousarray(self._resize(image).transpose(2, 0, 1), dtype=np.float32)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        if self.resize == "none":
            return image
        height, width = self.resized_sides(*image.shape[:2])
        if self.resize == "matterport":
            return zero_border_resize(image, height, width)
        if self.resize == "pillow" and image.dtype == np.uint8:
            channels = [Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2])]
            return np.dstack([np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels])
        if self.resize != "opencv":
            return _interpolate(_interpolate(image.astype(np.float32), 1, width), 0, height)
        resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR)
        return resized.reshape(height, width, -1)

    def resized_sides(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width of the model's input for an image of this height and width."""
        if self.resize == "none":
            return height, width
        scale = self.short_edge / min(height, width)
        if self.resize == "matterport":
            scale = max(1.0, scale, self.least_scale)
            if self.long_edge and round(max(height, width) * scale) > self.long_edge:
                scale = self.long_edge / max(height, width)
            return max(round(height * scale), 1), max(round(width * scale), 1)
        if self.resize == "pillow":
            # In the same steps as Detectron2, so that every size is rounded alike.
            sides = [scale * height, scale * width]
            sides[0 if height <= width else 1] = float(self.short_edge)
            if max(sides) > self.long_edge:
                shrink = self.long_edge / max(sides)
                sides = [side * shrink for side in sides]
            return int(sides[0] + 0.5), int(sides[1] + 0.5)
        scale = min(scale, self.long_edge / max(height, width))
        half = 0.5 if self.resize == "opencv" else 0.0
        return math.floor(height * scale + half), math.floor(width * scale + half)


def _fits(field: dataclasses.Field[Any], value: Any) -> bool:
    """Returns whether a value has the type of a field, and a size that an image can have."""
    kind = str(field.type)
    if kind.startswith("tuple"):
        names = "str" in kind
        return isinstance(value, tuple) and all(
            isinstance(entry, str) if names else _is_finite(entry) for entry in value
        )
    if kind in ("str", "bool"):
        return isinstance(value, str if kind == "str" else bool)
    largest = {
        "short_edge": LONGEST_EDGE,
        "long_edge": LONGEST_EDGE,
        "size_divisibility": LONGEST_EDGE,
        "least_scale": _LARGEST_SCALE,
    }
    return (
        _is_finite(value) and 0 <= value <= largest.get(field.name, 2**31) and (kind == "float" or value == int(value))
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _interpolate(image: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Resamples one axis as PyTorch's bilinear ``interpolate`` does, with float32 positions; OpenCV rounds differently."""
    image = np.moveaxis(image, axis, 0)
    scale = float(np.float32(len(image)) / np.float32(size))
    position = np.maximum((np.arange(size) + 0.5) * scale - 0.5, 0).astype(np.float32)
    low = position.astype(int)
    share = (position - low.astype(np.float32)).reshape(-1, 1, 1)
    left, right = image[low], image[np.minimum(low + 1, len(image) - 1)]
    return np.moveaxis(left * (1 - share) + right * share, 0, axis)


def scale_boxes(recipe: Recipe, boxes: np.ndarray, inner: tuple[int, int], outer: tuple[int, int]) -> np.ndarray:
    """Returns boxes (R, 4) in pixels of the image, clipped to it.

    Args:
        recipe: names the rule.
        boxes: (R, 4) x0, y0, x1, y1 float32, in pixels of the model's input.
        inner: height and width of the input.
        outer: height and width of the image.

    Example::

        boxes = scale_boxes(recipe, outputs["boxes"], pixels.shape[1:], image.shape[:2])
    """
    sides, input_sides = (np.array([size[1], size[0]] * 2, np.float32) for size in (outer, inner))
    if recipe.boxes == "detectron2":
        return np.clip(boxes * (sides / input_sides), 0, sides)
    # From the first pixel to the last; this distance is 0 in an image of one pixel.
    last = np.array([0, 0, 1, 1], np.float32)
    scaled = (boxes - last) * (np.maximum(sides - 1, 1) / np.maximum(input_sides - 1, 1)) + last
    return np.clip(np.rint(scaled) if recipe.boxes == "matterport, whole pixels" else scaled, 0, sides)


def input_name(batched: bool) -> str:
    """Returns the name of the model's input.

    Example:
        >>> input_name(batched=True)
        'images'
    """
    return "images" if batched else "image"


def recipe_file(model: Path) -> Path:
    """Returns the path of the recipe beside a file that cannot contain it.

    Example:
        >>> recipe_file(Path("model.ts")).name
        'model.json'
    """
    return model.with_suffix(".json")


def build_recipe(model: Any, mapper: Any, classes: Any, batched: bool = False) -> Recipe:
    """Returns the recipe of a model that is to be exported.

    Args:
        model: a GeneralizedRCNN.
        mapper: the config's ``dataloader.test.mapper``.
        classes: has the ``names``, ``category_ids`` and ``keypoint_names`` of the outputs.
        batched: whether the exported model takes several images a call.

    Raises:
        InputError: the mapper has augmentations that a recipe cannot describe.

    Example::

        export(model, build_recipe(model, mapper, classes), "onnx", "model.onnx")
    """
    from torch import nn

    from maskrcnn_ext.interop.export.graph import output_names
    from maskrcnn_ext.modeling.matterport.rcnn import STRIDE, LetterboxRCNN
    from maskrcnn_ext.modeling.torchvision_parts import TorchvisionRCNN

    predictor = model.roi_heads.box_predictor
    predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor  # Cascade R-CNN's last stage
    boxes = "detectron2"
    if isinstance(model, LetterboxRCNN):
        boxes = "matterport, whole pixels" if model.round_boxes else "matterport"
    return Recipe(
        image_format=mapper.image_format,
        **_describe_resize(mapper.augmentations.augs),
        pixel_mean=tuple(model.pixel_mean.flatten().tolist()),
        pixel_std=tuple(model.pixel_std.flatten().tolist()),
        size_divisibility=STRIDE if isinstance(model, LetterboxRCNN) else model.backbone.size_divisibility,
        class_names=tuple(classes.names),
        category_ids=tuple(classes.category_ids),
        keypoint_names=tuple(classes.keypoint_names),
        output_names=output_names(model, batched),
        score_threshold=predictor.test_score_thresh,
        nms_threshold=predictor.test_nms_thresh,
        max_detections=predictor.test_topk_per_image if predictor.test_topk_per_image >= 0 else 2**31 - 1,
        batched=batched,
        boxes=boxes,
        masks="torchvision" if isinstance(model, TorchvisionRCNN) else "detectron2",
    )


def _describe_resize(augmentations: list[Any]) -> dict[str, Any]:
    """Returns the fields of a recipe that describe how a mapper resizes."""
    from detectron2.data import transforms as T

    from maskrcnn_ext.data.mapping.augmentation.resizing import Letterbox, PlainResize

    unchanged = {"resize": "none", "short_edge": 0, "long_edge": 0}
    if not augmentations:
        return unchanged
    first = augmentations[0]
    if len(augmentations) == 1 and isinstance(first, PlainResize):
        return {"resize": first.style, "short_edge": first.short_edge_length, "long_edge": first.max_size}
    if len(augmentations) == 1 and type(first) is Letterbox and first.pad is None:
        sides = {"short_edge": int(first.min_dim or 0), "long_edge": int(first.max_dim or 0)}
        return {"resize": "matterport", **sides, "least_scale": float(first.min_scale or 0)}
    if len(augmentations) == 1 and type(first) is T.ResizeShortestEdge and first.interp == Image.Resampling.BILINEAR:
        lengths = set(first.short_edge_length)
        if len(lengths) == 1:
            length = int(lengths.pop())
            return {"resize": "pillow", "short_edge": length, "long_edge": int(first.max_size)} if length else unchanged
    raise InputError(
        f"dataloader.test.mapper.augmentations={augmentations}: an exported model can describe only one ResizeShortestEdge of one "
        "size, one PlainResize, one Letterbox without padding, or no augmentation"
    )
