"""Predictions of a trained model in Python: one image, or many in true batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Instances
from omegaconf import DictConfig
from PIL import Image

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.loading import load, reader
from maskrcnn_ext.inference.optimization.optimize import optimize_in_place
from maskrcnn_ext.modeling.compact_rcnn import compact_postprocess, output_size

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# How many batches' worth of images wait for others of their size.
_WAITING = 4


class Predictor:
    """A model with weights, ready to predict.

    ``Predictor("output/nuclei")("image.png")`` returns Detectron2's Instances: ``pred_boxes`` in pixels of the image as stored, ``scores``,
    ``pred_classes``, ``pred_masks`` as :class:`maskrcnn_ext.ops.rle_masks.RLEMasks` (``.to_dense()`` for an array), ``pred_keypoints``; on
    the CPU.

    Attributes:
        model: in evaluation mode.
        classes: what its outputs mean, a :class:`maskrcnn_ext.inference.loading.Classes`.
        image_format: of the arrays that the model is given: "BGR", "RGB", "L" or "raw".
        device: that the model is on.
        weights: where they are from.
    """

    def __init__(
        self,
        config: str | Path | DictConfig,
        weights: str | None = None,
        *,
        device: str | None = None,
        dtype: str = "fp32",
        overrides: Sequence[str] = (),
        optimize: bool = False,
    ) -> None:
        """Loads.

        Args:
            config: the folder of a run; a LazyConfig as file, as name of a shipped one, or as object; or a yacs file of Detectron2.
            weights: a file or a URL that Detectron2 knows. None: the run's best checkpoint, else its last; of a config, those it begins
                from. "" leaves the weights random.
            device: such as "cuda:1"; None for CUDA where there is a device, else the CPU.
            dtype: "fp32", or "bf16" or "fp16" for autocast to it.
            overrides: ``key=value`` for the config, as in training.
            optimize: predict with what :func:`maskrcnn_ext.optimize` makes of the model, for which `dtype` may be "auto", too.

        Raises:
            InputError: any of these cannot be, or the weights leave a part of the model random.
        """
        if dtype not in _DTYPES and not optimize:
            raise InputError(f"dtype={dtype}: expected {', '.join(_DTYPES)}")
        loaded = load(config, weights, device=device, overrides=overrides)
        if not isinstance(loaded.model, GeneralizedRCNN):
            raise InputError(f"{type(loaded.model).__name__} is no GeneralizedRCNN, whose results are known here")
        self.model = optimize_in_place(loaded.model, dtype=dtype) if optimize else loaded.model
        self.classes = loaded.classes
        self.weights = loaded.weights
        self.image_format: str = loaded.mapper.image_format
        self.device = self.model.device
        self._augmentations = loaded.mapper.augmentations
        self._read = reader(loaded.mapper)
        self._dtype = None if optimize else _DTYPES[dtype]
        # A model with weights from elsewhere may paste masks in another way.
        self._postprocess = getattr(self.model, "postprocess", compact_postprocess)

    def __call__(self, image: Any) -> Instances:
        """Predicts one image; see :meth:`pixels` for what it may be.

        Raises:
            InputError: it cannot be read.
        """
        return next(self.predict([image]))

    def predict(self, images: Iterable[Any], *, batch_size: int = 1) -> Iterator[Instances]:
        """Predicts images in their order; each result is that of the image alone.

        Only images that the model sees in the same size share a batch, since padding beside an image would change what is found in it.

        Args:
            images: see :meth:`pixels`; read as they are needed.
            batch_size: how many to predict at once, where there are as many of one size among the next few.

        Raises:
            InputError: an image cannot be read.
        """
        return self.run((self.prepare(self.pixels(image)) for image in images), batch_size=batch_size)

    def pixels(self, image: Any) -> np.ndarray:
        """Returns an image as (H, W, C) in :attr:`image_format`.

        Args:
            image: a path; the bytes of a file; a PIL image; an array (H, W) or (H, W, C), of three channels in the order B, G, R as OpenCV
                reads them, or for "raw" as the model was trained on; or a record of Detectron2 (``file_name``, and where needed
                ``window`` or ``slice``, see :func:`maskrcnn_ext.data.images.pixels.read_pixels`).

        Raises:
            InputError: it cannot be read, or is none of these.
        """
        if isinstance(image, str | Path):
            image = {"file_name": str(image)}
        if isinstance(image, dict):
            return np.asarray(self._read(image))
        if isinstance(image, Image.Image):
            array = np.asarray(image if image.mode in ("L", "I", "I;16", "F") else image.convert("RGB"))
            return self._arranged(array[:, :, ::-1] if array.ndim == 3 and self.image_format != "raw" else array)
        if isinstance(image, bytes | bytearray):
            decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) if image else None
            if decoded is None:
                raise InputError(f"{len(image)} bytes are no image file that OpenCV can decode")
            return self._arranged(decoded if self.image_format != "raw" else decoded[:, :, ::-1])
        if isinstance(image, np.ndarray):
            return self._arranged(image)
        raise InputError(
            f"one {type(image).__name__} is no image: give a path, bytes, an array, a PIL image or a record"
        )

    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        """Makes of pixels (H, W, C) what the model takes: ``image`` (C, h, w) resized, ``height`` and ``width`` as given."""
        height, width = pixels.shape[:2]
        # As SafeMapper: what Pillow resizes wrongly or not at all.
        if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
            pixels = pixels.astype(np.float32, copy=False)
        resized = T.AugInput(pixels)
        self._augmentations(resized)
        image = resized.image.reshape(*resized.image.shape[:2], -1)
        tensor = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def run(self, inputs: Iterable[dict[str, Any]], *, batch_size: int = 1) -> Iterator[Instances]:
        """Predicts what :meth:`prepare` has made, in order, see :meth:`predict`."""
        waiting: dict[tuple[int, ...], list[tuple[int, dict[str, Any]]]] = {}
        done: dict[int, Instances] = {}
        due = 0

        def finish(shape: tuple[int, ...]) -> None:
            numbers, batch = zip(*waiting.pop(shape), strict=True)
            done.update(zip(numbers, self._predict_batch(list(batch)), strict=True))

        for number, image in enumerate(inputs):
            shape = self._padded_shape(image["image"])
            waiting.setdefault(shape, []).append((number, image))
            if len(waiting[shape]) == batch_size:
                finish(shape)
            elif sum(map(len, waiting.values())) + len(done) >= _WAITING * batch_size:
                finish(min(waiting, key=lambda key: waiting[key][0][0]))
            while due in done:
                yield done.pop(due)
                due += 1
        for shape in list(waiting):
            finish(shape)
        yield from (done[number] for number in sorted(done))

    def _predict_batch(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        autocast = (
            contextlib.nullcontext()
            if self._dtype is None
            else torch.autocast(torch.device(self.device).type, dtype=self._dtype)
        )
        with torch.inference_mode(), autocast:
            raw = self.model.inference(inputs, do_postprocess=False)
            return [
                self._postprocess(_single_precision(found.to("cpu")), *output_size(image, found))
                for image, found in zip(inputs, raw, strict=True)
            ]

    def _padded_shape(self, image: torch.Tensor) -> tuple[int, ...]:
        step = max(self.model.backbone.size_divisibility, 1)
        return tuple(-(-side // step) * step for side in image.shape[-2:])

    def _arranged(self, array: np.ndarray) -> np.ndarray:
        """An array (H, W) or (H, W, C), of three channels B, G, R, in the image format."""
        image = array[:, :, None] if array.ndim == 2 else array
        if image.ndim != 3 or 0 in image.shape:
            raise InputError(
                f"an array of shape {array.shape} is no image: expected (height, width) or (height, width, channels)"
            )
        if self.image_format == "raw":
            return image
        if image.shape[2] not in (1, 3):
            raise InputError(f"an image of {image.shape[2]} channels for a model of image_format={self.image_format}")
        if self.image_format == "L":
            return (
                image
                if image.shape[2] == 1
                else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)[:, :, None]
            )
        image = image.repeat(3, axis=2) if image.shape[2] == 1 else image
        return image[:, :, ::-1] if self.image_format == "RGB" else image


def _single_precision(found: Instances) -> Instances:
    """Raw results in float32: pasted in autocast's precision, masks of large objects would be a pixel or two off."""
    if found.has("pred_keypoint_heatmaps"):  # (R, K, 56, 56), of which the keypoints are made already
        found.remove("pred_keypoint_heatmaps")
    for name, value in found.get_fields().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            found.set(name, value.float())
    return found
