#!/usr/bin/env python3
"""Runs a Mask R-CNN with OpenCV and NumPy only.

    python opencv_infer.py MODEL_FOLDER IMAGE [-o PICTURE] [--json FILE] [--threshold 0.5] [--engine auto|new|classic]

The folder was written by ``maskrcnn-ext export --to opencv``, which puts this file into it; or it contains the pair of files of OpenCV's
own samples, a frozen TensorFlow graph ``.pb`` and its ``.pbtxt``. In a program::

    from opencv_infer import load
    model = load("model_folder")
    found = model(cv2.imread("image.jpg"))
    found["boxes"], found["scores"], found["classes"], found["masks"]

OpenCV computes the layers. The steps between them are computed here as Detectron2 does: the same boxes, in the same order.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

DESCRIPTION = "model.json"
FORMAT = 1  # its version
LONGEST_EDGE = 2**14  # of resized images, in pixels; a file may ask for any
IMAGE_FORMATS = ("BGR", "RGB", "L")
ENGINES = ("auto", "new", "classic")
# Largest number of values in the RoI features that are pooled at a time: 128 MB.
_CHUNK = 2**25
# Largest part of a mask's window that is pasted at a time, in pixels.
_STRIP = 2**20

Array = np.ndarray
Found = dict[str, Any]


class InputError(ValueError):
    """An input cannot be used; the message names the fault and its fix in one line."""


def load(folder: str | Path, engine: str = "auto") -> MaskRCNN | TensorflowMaskRCNN:
    """Loads an exported model, or a TensorFlow graph if the folder has no ``model.json``.

    Raises:
        InputError: the folder contains no model, or this OpenCV cannot read it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not (folder / DESCRIPTION).is_file() and list(folder.glob("*.pb")):
        return TensorflowMaskRCNN(folder, engine)
    return MaskRCNN(folder, engine)


class MaskRCNN:
    """Runs a model that ``maskrcnn-ext export --to opencv`` has written.

    Attributes:
        class_names: names of the classes, by class index.
        category_ids: ids of the classes in the data set, by class index.
        keypoint_names: in the order of the keypoints; empty for a model without keypoints.
    """

    def __init__(self, folder: str | Path, engine: str = "auto") -> None:
        """Loads the folder.

        Args:
            folder: with ``model.json`` and its ``.onnx`` files.
            engine: "new" or "classic" engine of OpenCV 5; "auto" uses the new one, which is faster, if it exists.

        Raises:
            InputError: a file is missing or damaged, or OpenCV cannot read it.
        """
        folder = Path(folder)
        self._parameters = _read_parameters(folder / DESCRIPTION)
        self.class_names: list[str] = self._parameters["class_names"]
        self.category_ids: list[int] = self._parameters["category_ids"]
        self.keypoint_names: list[str] = self._parameters["keypoint_names"]
        self._nets = {
            name: read_net(folder / f"{name}.onnx", engine) for name in ("trunk", *self._parameters["poolers"])
        }

    def __call__(self, image: Array, threshold: float = 0.0) -> Found:
        """Detects the objects of an image.

        Args:
            image: (height, width, 3) uint8 in OpenCV's order blue, green, red; or (height, width) grey.
            threshold: least score; the model's own threshold applies if it is higher.

        Returns:
            R objects by descending score: ``boxes`` (R, 4) float32, x0, y0, x1, y1 in pixels of the image; ``scores`` (R,) float32;
            ``classes`` (R,) int64. If the model predicts them: ``masks``, R pairs of a window's origin (x, y) and its pixels (h, w)
            bool, see :func:`encode`; ``keypoints`` (R, K, 3) float32, x, y and score.

        Raises:
            InputError: `image` is not such an array.
        """
        _check_image(image)
        height, width = image.shape[:2]
        pixels = _resize(_channels(image, self._parameters["image_format"]), self._parameters)
        size = pixels.shape[:2]
        names = [
            *self._parameters["features"],
            *(f"{kind}_{level}" for kind in ("objectness", "deltas") for level in range(len(self._anchors["cells"]))),
        ]
        outputs = dict(
            zip(names, _forward(self._nets["trunk"], _normalise(pixels, self._parameters), names), strict=True)
        )
        # Channels last, so that the part of a row that a RoI covers is contiguous.
        maps = {
            name: np.ascontiguousarray(outputs[name][0].transpose(1, 2, 0)) for name in self._parameters["features"]
        }
        boxes, scores, classes = self._detect(maps, self._propose(outputs, size), size, threshold)

        factors = _floats([width / size[1], height / size[0]] * 2)
        scaled = _clip(boxes * factors, (height, width))
        kept = _is_larger(scaled, 0.0)
        boxes, scaled, classes = boxes[kept], scaled[kept], classes[kept]
        found: Found = {"boxes": scaled, "scores": scores[kept], "classes": classes}
        if "mask_head" in self._nets:
            (logits,) = self._run_head("mask_head", ["logits"], maps, boxes)
            logits = logits[np.arange(len(logits)), classes if logits.shape[1] > 1 else 0]
            grids = 0.5 + 0.5 * np.tanh(0.5 * logits)  # the sigmoid, without overflow
            limit = self._parameters["mask_threshold"]
            found["masks"] = [paste(grid, box, (height, width), limit) for grid, box in zip(grids, scaled, strict=True)]
        if "keypoint_head" in self._nets:
            (logits,) = self._run_head("keypoint_head", ["logits"], maps, boxes)
            points = np.zeros((*logits.shape[:2], 3), np.float32)
            for row, heatmaps, box in zip(points, logits, boxes, strict=True):
                row[:] = _keypoints(heatmaps, box)
            found["keypoints"] = points * _floats([*factors[:2], 1])
        return found

    @property
    def _anchors(self) -> dict[str, Any]:
        anchors: dict[str, Any] = self._parameters["anchors"]
        return anchors

    def _propose(self, outputs: dict[str, Array], size: tuple[int, int]) -> Array:
        """Returns the proposals (P, 4) by descending objectness."""
        rules, anchors = self._parameters["proposals"], self._anchors
        boxes, logits, levels = [], [], []
        for level, (cells, stride) in enumerate(zip(anchors["cells"], anchors["strides"], strict=True)):
            cell = _floats(cells)
            objectness, deltas = outputs[f"objectness_{level}"][0], outputs[f"deltas_{level}"][0]
            columns = objectness.shape[2]
            flat = objectness.transpose(1, 2, 0).ravel()
            top = np.argsort(-flat, kind="stable")[: rules["pre_nms"]]
            place, anchor = np.divmod(top, len(cell))
            y, x = np.divmod(place, columns)
            shifts = (np.stack([x, y, x, y], axis=1) + anchors["offset"]).astype(np.float32) * np.float32(stride)
            chosen = deltas.reshape(len(cell), 4, -1)[anchor, :, place]
            boxes.append(_decode(chosen, shifts + cell[anchor], rules))
            logits.append(flat[top])
            levels.append(np.full(len(top), level))
        found, scores, level_of = np.concatenate(boxes), np.concatenate(logits), np.concatenate(levels)
        finite = np.isfinite(found).all(axis=1) & np.isfinite(scores)
        found = _clip(found, size)
        valid = finite & _is_larger(found, rules["min_size"])
        found, scores, level_of = found[valid], scores[valid], level_of[valid]
        return found[suppress(found, scores, level_of, rules["nms_threshold"])[: rules["post_nms"]]]

    def _detect(
        self, maps: dict[str, Array], proposals: Array, size: tuple[int, int], threshold: float
    ) -> tuple[Array, Array, Array]:
        """Returns the detections: boxes (R, 4) in pixels of the resized image, scores (R,) and classes (R,)."""
        probabilities, deltas = self._run_head("box_head", ["probabilities", "deltas"], maps, proposals)
        boxes = _decode(deltas, proposals, self._parameters["box_coder"])
        finite = np.isfinite(boxes).all(axis=1) & np.isfinite(probabilities).all(axis=1)
        boxes, scores = boxes[finite].reshape(-1, boxes.shape[1] // 4, 4), probabilities[finite, :-1]
        rows, classes = np.nonzero(scores > max(threshold, self._parameters["score_threshold"]))
        boxes = _clip(boxes[rows, classes if boxes.shape[1] > 1 else 0], size)
        scores = scores[rows, classes]
        kept = suppress(boxes, scores, classes, self._parameters["nms_threshold"])
        if self._parameters["max_detections"] >= 0:
            kept = kept[: self._parameters["max_detections"]]
        return boxes[kept], scores[kept], classes[kept]

    def _run_head(self, name: str, outputs: list[str], maps: dict[str, Array], boxes: Array) -> list[Array]:
        """Pools the features of boxes (R, 4) in chunks and runs a head on them; if R is 0, on a dummy box for the outputs' shapes."""
        pooler = self._parameters["poolers"][name]
        levels = [maps[feature] for feature in pooler["features"]]
        step = max(1, _CHUNK // (levels[0].shape[2] * pooler["output_size"][0] * pooler["output_size"][1]))
        rois = boxes if len(boxes) else np.zeros((1, 4), np.float32)
        chunks = [
            _forward(self._nets[name], pool(levels, rois[start : start + step], pooler), outputs)
            for start in range(0, len(rois), step)
        ]
        return [np.concatenate(parts)[: len(boxes)] for parts in zip(*chunks, strict=True)]


class TensorflowMaskRCNN:
    """Runs the pair of files of OpenCV's samples: a frozen graph of TensorFlow's object detection API and its text.

    Attributes:
        class_names: from a ``.names`` or ``.txt`` file with one name a line; empty without such a file.
    """

    def __init__(self, folder: str | Path, engine: str = "auto") -> None:
        """Loads the folder.

        Args:
            folder: with one ``.pb`` and one ``.pbtxt`` file.
            engine: "classic" or "auto", which mean the same: the new engine does not return both outputs of such a graph.

        Raises:
            InputError: a file is missing or not the only one, the engine is "new", or this OpenCV cannot read the graph.
        """
        folder = Path(folder)
        graph, text = _only_file(folder, "*.pb"), _only_file(folder, "*.pbtxt")
        if not hasattr(cv2.dnn, "readNetFromTensorflow"):
            raise InputError(
                f"{graph}: OpenCV {cv2.__version__} no longer reads TensorFlow's graphs: pip install 'opencv-python-headless<5', or export "
                "the model to ONNX"
            )
        if engine == "new":
            raise InputError(
                f"{graph}: OpenCV's new engine does not return all outputs of such a graph: use the classic one"
            )
        read: Any = cv2.dnn.readNetFromTensorflow
        try:
            self._net = read(str(graph), str(text), **_engine("classic" if engine == "auto" else engine))
        except cv2.error as error:
            raise InputError(
                f"{graph}: OpenCV {cv2.__version__} cannot read it with {text.name}, which tf_text_graph_mask_rcnn.py of OpenCV's "
                f"samples writes ({_reason(error)})"
            ) from None
        names = sorted([*folder.glob("*.names"), *folder.glob("*.txt")])
        self.class_names = names[0].read_text(encoding="utf-8").splitlines() if names else []
        self.keypoint_names: list[str] = []

    def __call__(self, image: Array, threshold: float = 0.0) -> Found:
        """Detects the objects of an image; see :meth:`MaskRCNN.__call__`."""
        _check_image(image)
        height, width = image.shape[:2]
        blob = cv2.dnn.blobFromImage(_channels(image, "BGR"), swapRB=True, crop=False)
        detections, masks = _forward(self._net, blob, ["detection_out_final", "detection_masks"])
        return decode_tensorflow(detections, masks, (height, width), threshold)

    @property
    def category_ids(self) -> list[int]:
        return list(range(1, len(self.class_names) + 1))


def decode_tensorflow(detections: Array, masks: Array, size: tuple[int, int], threshold: float = 0.0) -> Found:
    """Decodes the outputs of TensorFlow's Mask R-CNN.

    Args:
        detections: (1, 1, N, 7): image, class, score, x0, y0, x1, y1, the last four divided by the image's width and height.
        masks: (N, classes, M, M) probabilities.
        size: height and width of the image.
        threshold: least score.

    Returns:
        As :meth:`MaskRCNN.__call__`.
    """
    height, width = size
    rows = detections.reshape(-1, 7)
    # OpenCV fills unused rows with zeros, and returns a mask for the first of them.
    boxes = _clip(rows[:, 3:7] * _floats([width, height, width, height]), size)
    kept = np.flatnonzero((rows[:, 2] > threshold) & _is_larger(boxes, 0.0))
    kept = kept[np.argsort(-rows[kept, 2], kind="stable")]
    classes = rows[kept, 1].astype(np.int64)
    pasted = [paste(masks[row, kind], boxes[row], size, 0.5) for row, kind in zip(kept, classes, strict=True)]
    return {"boxes": boxes[kept], "scores": rows[kept, 2], "classes": classes, "masks": pasted}


def read_net(file: Path, engine: str = "auto") -> Any:
    """Returns OpenCV's network of an ONNX file.

    Raises:
        InputError: the file is missing, or OpenCV cannot read it.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        return cv2.dnn.readNetFromONNX(str(file), **_engine(engine))
    except cv2.error as error:
        raise InputError(f"{file}: OpenCV {cv2.__version__} cannot read it ({_reason(error)})") from None


def _engine(name: str) -> dict[str, int]:
    """Returns the keyword argument that selects an engine; OpenCV 4 has none."""
    if name not in ENGINES:
        raise InputError(f"engine {name!r}: expected {', '.join(ENGINES)}")
    if not hasattr(cv2.dnn, "ENGINE_NEW"):
        if name == "new":
            raise InputError(
                f"OpenCV {cv2.__version__} has the classic engine only: remove --engine, or install OpenCV 5"
            )
        return {}
    return {"engine": getattr(cv2.dnn, f"ENGINE_{name.upper()}")}


def _forward(net: Any, blob: Array, outputs: list[str]) -> list[Array]:
    try:
        net.setInput(blob)
        return list(net.forward(outputs))
    except cv2.error as error:
        raise InputError(f"OpenCV {cv2.__version__} cannot run this model ({_reason(error)})") from None


def _floats(values: Any) -> Array:
    return np.asarray(values, np.float32)


def _read_parameters(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: no such file: give the folder that `maskrcnn-ext export --to opencv` has written")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{file}: not written by `maskrcnn-ext export --to opencv`") from None
    if version != FORMAT:
        raise InputError(
            f"{file}: has format {version}, and this opencv_infer.py reads format {FORMAT}: use the script in that folder"
        )
    for name in ("short_edge", "long_edge", "size_divisibility"):
        value = content.get(name, 0)
        if not (isinstance(value, int | float) and 0 <= value <= LONGEST_EDGE):
            raise InputError(f"{file}: {name} is {value!r:.100}, expected a number of pixels up to {LONGEST_EDGE}")
    return dict(content)


def _only_file(folder: Path, pattern: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise InputError(f"{folder}: expected one file {pattern}, found {len(files)}")
    return files[0]


def _reason(error: cv2.error) -> str:
    return " ".join(str(error).split())[:200]


def _check_image(image: Any) -> None:
    shape = getattr(image, "shape", None)
    known = shape is not None and 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))
    if not known or image.dtype != np.uint8:
        raise InputError(
            f"expected an image (height, width, 3) or (height, width) of uint8, not {type(image).__name__} {shape} "
            f"{getattr(image, 'dtype', '')}"
        )


def _channels(image: Array, order: str) -> Array:
    if order == "L":
        return image[:, :, None] if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[:, :, None]
    image = image[:, :, None].repeat(3, axis=2) if image.ndim == 2 else image
    return image[:, :, ::-1] if order == "RGB" else image


def _resize(image: Array, rule: dict[str, Any]) -> Array:
    """Resizes the short side to ``short_edge``, or the long one to ``long_edge`` if it would be longer, by the rule's method."""
    height, width = image.shape[:2]
    if rule["resize"] == "none":
        return image
    if rule["resize"] == "pillow":
        scale = rule["short_edge"] / min(height, width)
        new = (rule["short_edge"], scale * width) if height < width else (scale * height, rule["short_edge"])
        shrink = min(1.0, rule["long_edge"] / max(new))
        return _resize_as_pillow(image, int(new[0] * shrink + 0.5), int(new[1] * shrink + 0.5))
    scale = min(rule["short_edge"] / min(height, width), rule["long_edge"] / max(height, width))
    plain = rule["resize"] == "torchvision"
    new_height, new_width = (int(side * scale + (0.0 if plain else 0.5)) for side in (height, width))
    pixels = image.astype(np.float32) if plain else np.ascontiguousarray(image)
    return cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_LINEAR).reshape(
        new_height, new_width, -1
    )


def _resize_as_pillow(image: Array, height: int, width: int) -> Array:
    """Resizes as Pillow does, bit for bit: bilinear with antialiasing, in fixed-point numbers."""
    bits = 22
    for axis, new in ((1, width), (0, height)):
        old = image.shape[axis]
        if old == new:
            continue
        scale = old / new
        support = max(scale, 1.0)
        centre = (np.arange(new) + 0.5) * scale
        first = np.maximum((centre - support + 0.5).astype(int), 0)
        end = np.minimum((centre + support + 0.5).astype(int), old)
        taps = first[:, None] + np.arange((end - first).max())
        weights = np.maximum(1 - np.abs((taps - centre[:, None] + 0.5) / support), 0) * (taps < end[:, None])
        weights = (weights / weights.sum(axis=1, keepdims=True) * 2**bits + 0.5).astype(np.int32)
        taps = np.minimum(taps, old - 1)
        shape = (-1, 1) if axis == 1 else (-1, 1, 1)
        total = np.int32(1 << (bits - 1))
        for tap, weight in zip(taps.T, weights.T, strict=True):
            total = total + image.take(tap, axis).astype(np.int32) * weight.reshape(shape)
        image = (total >> bits).astype(np.uint8)
    return image


def _normalise(pixels: Array, rule: dict[str, Any]) -> Array:
    """Returns normalised pixels (1, C, H', W'), padded with zeros at the right and at the bottom."""
    step = max(rule["size_divisibility"], 1)
    height, width = (-(-side // step) * step for side in pixels.shape[:2])
    blob = np.zeros((1, pixels.shape[2], height, width), np.float32)
    values = (pixels.astype(np.float32) - _floats(rule["pixel_mean"])) / _floats(rule["pixel_std"])
    blob[0, :, : pixels.shape[0], : pixels.shape[1]] = values.transpose(2, 0, 1)
    return blob


def _decode(deltas: Array, boxes: Array, coder: dict[str, Any]) -> Array:
    """Applies deltas (N, 4 * k) to boxes (N, 4) and returns boxes (N, 4 * k)."""
    by_box = deltas.reshape(len(boxes), deltas.shape[1] // 4, 4)
    dx, dy, dw, dh = (by_box / _floats(coder["weights"])).transpose(2, 0, 1)
    sizes = boxes[:, 2:] - boxes[:, :2]
    width, height = sizes.T[:, :, None]
    x, y = (boxes[:, :2] + np.float32(0.5) * sizes).T[:, :, None]
    limit = np.float32(coder["scale_clamp"])
    x, y = dx * width + x, dy * height + y
    half_width, half_height = (
        np.float32(0.5) * np.exp(np.minimum(delta, limit)) * side for delta, side in ((dw, width), (dh, height))
    )
    corners = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)
    return corners.reshape(deltas.shape)


def _clip(boxes: Array, size: tuple[int, int]) -> Array:
    """Clips boxes to an image of (height, width)."""
    height, width = size
    return np.clip(boxes, 0, _floats([width, height, width, height]))


def _is_larger(boxes: Array, side: float) -> Array:
    """Returns which boxes are wider and higher than `side`."""
    return (boxes[:, 2] - boxes[:, 0] > side) & (boxes[:, 3] - boxes[:, 1] > side)


def suppress(boxes: Array, scores: Array, groups: Array, threshold: float) -> Array:
    """Non-maximum suppression within each group.

    ``cv2.dnn.NMSBoxes`` is not used: it rejects negative scores, and treats boxes without area as duplicates.

    Args:
        boxes: (N, 4)
        scores: (N,)
        groups: (N,) int
        threshold: largest IoU of two boxes of a group that are kept.

    Returns:
        Indices of the kept boxes, by descending score.
    """
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(len(order), bool)
    for group in np.unique(groups):
        rest = np.flatnonzero(groups[order] == group)
        x0, y0, x1, y1 = boxes[order[rest]].T.copy()
        areas = (x1 - x0) * (y1 - y0)
        alive = np.ones(len(rest), bool)
        for one in range(len(rest)):
            if not alive[one]:
                continue
            after = slice(one + 1, None)
            width = np.minimum(x1[one], x1[after]) - np.maximum(x0[one], x0[after])
            height = np.minimum(y1[one], y1[after]) - np.maximum(y0[one], y0[after])
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            # No division, as the IoU of two boxes without area is 0 / 0.
            alive[after] &= ~(shared > np.float32(threshold) * (areas[one] + areas[after] - shared))
        kept[rest[alive]] = True
    return order[kept]


def pool(maps: list[Array], boxes: Array, pooler: dict[str, Any]) -> Array:
    """RoIAlign: the mean of bilinear samples in each of s x s bins of every box.

    The mean over a grid of samples separates into the two axes, so it is computed as two matrix products with the covered cells.

    Args:
        maps: feature maps (H_l, W_l, C), finest first.
        boxes: (R, 4) in pixels of the model's input.
        pooler: parameters of the pooler.

    Returns:
        (R, C, s, s) float32.
    """
    rows, columns = pooler["output_size"]
    levels = np.zeros(len(boxes), int)
    if len(maps) > 1:
        sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        level = np.floor(pooler["canonical_level"] + np.log2(sides / pooler["canonical_box_size"] + np.float32(1e-8)))
        levels = (np.clip(level, pooler["min_level"], pooler["max_level"]) - pooler["min_level"]).astype(int)
    pooled = np.zeros((len(boxes), rows, columns, maps[0].shape[2]), np.float32)
    for number, (features, scale) in enumerate(zip(maps, pooler["scales"], strict=True)):
        index = np.flatnonzero(levels == number)
        if not len(index):
            continue
        x0, y0, x1, y1 = boxes[index].T * np.float32(scale)
        y, height, by_row = _sampling(y0, y1, rows, features.shape[0], pooler)
        x, width, by_column = _sampling(x0, x1, columns, features.shape[1], pooler)
        for one, roi in enumerate(index):
            h, w = height[one], width[one]
            covered = features[y[one] : y[one] + h, x[one] : x[one] + w]
            bands = by_row[one, :, :h] @ covered.reshape(h, -1)
            np.matmul(by_column[one, :, :w], bands.reshape(rows, w, -1), out=pooled[roi])
    return np.ascontiguousarray(pooled.transpose(0, 3, 1, 2))


def _sampling(low: Array, high: Array, bins: int, size: int, pooler: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Returns, along one axis, the first cell (R,) and the number of cells (R,) of each RoI, and their weights (R, bins, cells)."""
    start = low - np.float32(0.5 if pooler["aligned"] else 0)
    length = high - low if pooler["aligned"] else np.maximum(high - low, 1)
    step = (length / bins)[:, None, None]
    counts = np.full(len(low), pooler["sampling_ratio"]) if pooler["sampling_ratio"] > 0 else np.ceil(step[:, 0, 0])
    wanted = counts[:, None, None].astype(np.float32)  # 0 in a box without extent
    counts = np.maximum(wanted, 1)
    sample = np.arange(counts.max(), dtype=np.float32)
    bin_start = start[:, None, None] + np.arange(bins, dtype=np.float32)[:, None] * step
    position = bin_start + (sample + np.float32(0.5)) * step / counts
    used = (sample < wanted) & (position >= -1) & (position <= size)
    position = np.clip(position, 0, size - 1)
    lower = position.astype(int)
    upper = np.minimum(lower + 1, size - 1)
    share = position - lower
    first = lower[:, 0, 0]
    # Samples beyond a RoI's count are unused: they point to its first cell.
    last = np.where(used, upper, first[:, None, None]).max(axis=(1, 2))
    most = int((last - first).max()) + 1
    row = (np.arange(len(low))[:, None] * bins + np.arange(bins))[:, :, None] * most
    weights = np.zeros(len(low) * bins * most)
    for cell, weight in ((lower, 1 - share), (upper, share)):
        place = np.where(used, row + cell - first[:, None, None], 0)
        weights += np.bincount(place.ravel(), (weight * used / counts).ravel(), len(weights))
    return first, last - first + 1, weights.reshape(len(low), bins, most).astype(np.float32)


def paste(grid: Array, box: Array, size: tuple[int, int], threshold: float) -> tuple[tuple[int, int], Array]:
    """Pastes a mask into a window around its box, as Detectron2 does on a CPU.

    Args:
        grid: (M, M) probabilities on a grid over the box.
        box: x0, y0, x1, y1 in pixels of the image.
        size: height and width of the image.
        threshold: least probability of a mask's pixel.

    Returns:
        The window's origin (x, y) in the image, and its pixels (h, w) bool.
    """
    height, width = size
    x0, y0 = (max(int(np.floor(edge)) - 1, 0) for edge in box[:2])
    x1, y1 = (min(int(np.ceil(edge)) + 1, side) for edge, side in zip(box[2:], (width, height), strict=True))
    by_column = _paste_weights(box[0], box[2], x0, x1, grid.shape[1])
    by_row = _paste_weights(box[1], box[3], y0, y1, grid.shape[0])
    columns = grid.astype(np.float32) @ by_column.T
    window = np.empty((max(y1 - y0, 0), max(x1 - x0, 0)), bool)
    step = max(1, _STRIP // max(window.shape[1], 1))
    for start in range(0, len(window), step):
        np.greater_equal(by_row[start : start + step] @ columns, threshold, out=window[start : start + step])
    return (x0, y0), window


def _paste_weights(low: np.float32, high: np.float32, first: int, end: int, cells: int) -> Array:
    """Returns the bilinear weights (pixels, cells) of a grid's cells for the pixels of one axis; the grid is padded with zeros."""
    centres = np.arange(first, max(end, first), dtype=np.float32) + np.float32(0.5)
    position = ((centres - low) / (high - low) * cells - np.float32(0.5))[:, None]
    return np.maximum(1 - np.abs(position - np.arange(cells, dtype=np.float32)), 0)


def _keypoints(heatmaps: Array, box: Array) -> Array:
    """Returns keypoints (K, 3), x, y and score: the maximum of each heatmap (K, S, S), enlarged to the box."""
    width, height = (max(float(side), 1.0) for side in box[2:] - box[:2])
    whole = (int(np.ceil(width)), int(np.ceil(height)))
    points = []
    for plane in heatmaps:
        large = cv2.resize(plane, whole, interpolation=cv2.INTER_CUBIC)
        y, x = np.unravel_index(large.argmax(), large.shape)
        score = 1 / np.exp(plane - large.max()).sum()
        points.append((box[0] + (x + 0.5) * width / whole[0], box[1] + (y + 0.5) * height / whole[1], score))
    return _floats(points)


def encode(mask: tuple[tuple[int, int], Array], size: tuple[int, int]) -> dict[str, Any]:
    """Encodes a mask in its window as COCO's compressed RLE of the image, ``{"size": [height, width], "counts": text}``.

    Example:
        >>> encode(((1, 0), np.ones((2, 1), bool)), (2, 3))
        {'size': [2, 3], 'counts': '222'}
    """
    (x0, y0), window = mask
    height, width = size
    rows, columns = window.shape
    # Column by column, with a background pixel before the first column and after each.
    line = np.zeros(1 + columns * (rows + 1), bool)
    line[1:].reshape(columns, rows + 1)[:, :rows] = window.T
    column, row = np.divmod(np.flatnonzero(line[1:] != line[:-1]), rows + 1)
    edges = (x0 + column) * height + y0 + row
    meeting = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1  # one run ends where the next starts
    edges = np.delete(edges, np.concatenate([meeting, meeting + 1]))
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    text = []
    for place, count in enumerate(counts):
        value, more = count - counts[place - 2] if place > 2 else count, True
        while more:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            text.append(chr(low + 32 * more + 48))
    return {"size": [height, width], "counts": "".join(text)}


def draw(image: Array, found: Found, class_names: list[str]) -> Array:
    """Returns a copy of the image with masks, boxes, names, scores and keypoints."""
    picture = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    scale = max(picture.shape[:2]) / 1200
    line = max(1, round(2 * scale))
    size = max(0.4, scale)
    labels: list[tuple[str, int, int, Any]] = []  # drawn last, so that no mask covers them
    for number, box in enumerate(found["boxes"]):
        hue = np.array([[[number * 67 % 180, 200, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
        if "masks" in found:
            (x, y), window = found["masks"][number]
            part = picture[y : y + window.shape[0], x : x + window.shape[1]]
            part[window] = (part[window] * 0.5 + _floats(colour) * 0.5).astype(np.uint8)
        x0, y0, x1, y1 = box.round().astype(int).tolist()
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, line)
        name = (
            _name(class_names, found["classes"][number]).encode("ascii", "replace").decode()
        )  # OpenCV draws ASCII only
        text = f"{name:.60} {found['scores'][number]:.0%}"
        labels.append((text, x0, y0, colour))
        for x, y, _ in found["keypoints"][number] if "keypoints" in found else ():
            cv2.circle(picture, (round(float(x)), round(float(y))), 2 * line, colour, -1, cv2.LINE_AA)
    for text, left, top, colour in reversed(labels):  # the best one on top
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, line)
        bottom = max(top, height + below)
        cv2.rectangle(picture, (left, bottom - height - below), (left + width, bottom), colour, -1)
        place = (left, bottom - below)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), line, cv2.LINE_AA)
    return picture


def records(found: Found, model: MaskRCNN | TensorflowMaskRCNN, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Returns the objects as entries of COCO's results files, without ``image_id``."""
    rows = []
    for number, (x0, y0, x1, y1) in enumerate(found["boxes"].tolist()):
        kind = int(found["classes"][number])
        row = {
            "category_id": model.category_ids[kind] if kind < len(model.category_ids) else kind + 1,
            "class": _name(model.class_names, kind),
            "score": round(float(found["scores"][number]), 5),
            "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
        }
        if "masks" in found:
            row["segmentation"] = encode(found["masks"][number], size)
        if "keypoints" in found:
            row["keypoints"] = [round(value, 3) for value in found["keypoints"][number].ravel().tolist()]
        rows.append(row)
    return rows


def _name(names: list[str], kind: int) -> str:
    """Returns the name of a class index."""
    return names[kind] if kind < len(names) else f"class {kind}"


def read_image(file: Path) -> Array:
    """Reads an image file in the order blue, green, red; the orientation in its EXIF data is applied.

    Raises:
        InputError: the file cannot be read, or OpenCV cannot decode it.
    """
    try:
        content = np.fromfile(file, np.uint8)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        raise InputError(f"{file}: not an image that OpenCV can read")
    return image


def _write_picture(file: Path, picture: Array) -> None:
    try:
        done, content = cv2.imencode(file.suffix, picture)
        if done:
            content.tofile(file)
    except cv2.error:
        done = False
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror or error})") from None
    if not done:
        raise InputError(f"{file}: OpenCV cannot write this kind of image: use a name that ends in .png or .jpg")


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(description="Detect the objects of an image with OpenCV and NumPy only.")
    parser.add_argument("model", type=Path, help="the model's folder")
    parser.add_argument("image", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="an image file to draw the objects into")
    parser.add_argument(
        "--json", type=Path, help="a JSON file to write boxes, scores, classes and masks (COCO's RLE) into"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="least score (default: 0.5)")
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="engine of OpenCV 5 (default: the new one if it exists)"
    )
    args = parser.parse_args(argv)
    # Errors are reported below, so OpenCV need not log them. The function moved in 4.13.
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_level(0)
    try:
        image = read_image(args.image)
        model = load(args.model, args.engine)
        found = model(image, args.threshold)
        rows = records(found, model, image.shape[:2])
        if args.json:
            size = {"height": image.shape[0], "width": image.shape[1]}
            text = json.dumps({"file_name": str(args.image), **size, "detections": rows})
            try:
                args.json.write_text(text, encoding="utf-8")
            except OSError as error:
                raise InputError(f"{args.json}: cannot be written ({error.strerror or error})") from None
        if args.output:
            _write_picture(args.output, draw(image, found, model.class_names))
    except InputError as error:
        print(f"opencv_infer.py: error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        print(f"{row['score']:.3f}  {row['class']}  box x, y, width, height: {row['bbox']}")
    print(f"{len(rows)} {'object' if len(rows) == 1 else 'objects'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
