"""Predicts single images or batches of images with a trained model, in Python."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Instances
from omegaconf import DictConfig

from maskrcnn_ext.common.text import or_list, short_list
from maskrcnn_ext.data.mapping.mapper import augment_image
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.base_predictor import BasePredictor
from maskrcnn_ext.inference.loading import image_reader, load_model
from maskrcnn_ext.inference.optimization.calibration import CalibrationFile, digest_of, weights_digest
from maskrcnn_ext.inference.optimization.optimize import optimize_in_place
from maskrcnn_ext.inference.sources import file_state
from maskrcnn_ext.inference.value_scale import ValueScale
from maskrcnn_ext.modeling.compact_rcnn import compact_postprocess, output_size

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# Most batches of images that wait for others of their size.
_MAX_WAITING_BATCHES = 4


class Predictor(BasePredictor):
    """A model with weights, ready to predict.

    It returns :class:`maskrcnn_ext.inference.predictions.Predictions`, which are Detectron2's ``Instances`` on the CPU: ``pred_boxes`` in
    pixels of the image as stored, ``scores``, ``pred_classes``, ``pred_masks`` as :class:`maskrcnn_ext.ops.rle_masks.RLEMasks`
    (``.numpy()`` returns an array), and ``pred_keypoints``. Its attributes are those of :class:`.base_predictor.BasePredictor`.

    Example:
        ::

            predictor = maskrcnn_ext.Predictor("output/nuclei")
            found = predictor("image.png", threshold=0.5)
            found.plot(), found.records(), found.pred_masks.numpy()
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
        calibrate: Sequence[Any] = (),
    ) -> None:
        """Builds the model and loads its weights.

        Args:
            config: the folder of a run; a LazyConfig as a file, the name of a shipped one, or an object; or a yacs file of Detectron2.
            weights: a file or a URL that Detectron2 can read. None for the best checkpoint of a run, else its last, or for the weights that
                a config starts from. "" leaves the weights random.
            device: such as "cuda:1"; None for CUDA if there is a device, else the CPU.
            dtype: "fp32", or "bf16" or "fp16" for autocast to that type.
            overrides: ``key=value`` for the config, as in training.
            optimize: whether to make the model faster with :func:`maskrcnn_ext.optimize`; `dtype` may then also be "auto", or
                "int8" for 8-bit integers on a CPU.
            calibrate: for "int8", about 32 images like those to predict; see :meth:`pixels`. The measurements are kept in a file
                beside the weights: a later start with the same weights and images does not read them.

        Raises:
            InputError: an argument is invalid, or the weights leave a part of the model random.
        """
        if dtype not in _DTYPES and not optimize:
            raise InputError(f"dtype={dtype}: expected {or_list(list(_DTYPES))}")
        loaded = load_model(config, weights, device=device, overrides=overrides)
        if not isinstance(loaded.model, GeneralizedRCNN):
            raise InputError(f"{type(loaded.model).__name__} is not a GeneralizedRCNN, which prediction needs")
        super().__init__(
            loaded.model, loaded.classes, loaded.weights, loaded.mapper.image_format, image_reader(loaded.mapper)
        )
        self._augmentations = loaded.mapper.augmentations
        self._scale = ValueScale(self.model)
        self._dtype = None if optimize else _DTYPES[dtype]
        if optimize:
            self._optimize(dtype, calibrate, loaded.settings)
        # Models imported from other frameworks may paste masks in another way.
        self._postprocess = getattr(self.model, "postprocess", compact_postprocess)

    def _optimize(self, dtype: str, calibrate: Sequence[Any], settings: str) -> None:
        if dtype != "int8":
            self.model = optimize_in_place(self.model, dtype=dtype, calibrate=calibrate or None)
            return
        images = (self.prepare(self.pixels(image)) for image in calibrate)
        scales = None
        if calibrate and Path(self.weights).is_file():
            of_model = weights_digest(self.model), settings, self.image_format, str(self._augmentations)
            key = digest_of([*of_model, *map(self._image_key, calibrate)])
            scales = CalibrationFile(Path(self.weights).with_suffix(".int8.json"), key)
        self.model = optimize_in_place(self.model, dtype=dtype, calibrate=images, scales=scales)

    def _image_key(self, image: Any) -> str:
        """Returns a text that changes with an image: the state of its file, or a hash of its pixels."""
        if isinstance(image, str | Path):
            return file_state(str(image))
        if isinstance(image, dict):
            return f"{file_state(str(image['file_name']))} {image}"
        return hashlib.sha256(self.pixels(image).tobytes()).hexdigest()

    def __repr__(self) -> str:
        classes = short_list([str(name) for name in self.classes.names])
        weights = self.weights or "random weights"
        return f"Predictor({type(self.model).__name__} of {classes}; {weights}; {self.device})"

    def prepare(self, pixels: np.ndarray) -> dict[str, Any]:
        """Returns the model's input for pixels (H, W, C): the resized ``image`` (C, h, w), and ``height`` and ``width`` H and W.

        Warns once if the values do not have the scale of the model's ``pixel_mean`` and ``pixel_std``.
        """
        self._scale.check(pixels)
        height, width = pixels.shape[:2]
        tensor, _, _ = augment_image(pixels, self._augmentations)
        return {"image": tensor, "height": height, "width": width}

    def run(self, inputs: Iterable[dict[str, Any]], *, batch_size: int = 1) -> Iterator[Instances]:
        """Predicts inputs that :meth:`prepare` returned; yields the instances in the same order, see :meth:`predict`."""
        waiting: dict[tuple[int, ...], list[tuple[int, dict[str, Any]]]] = {}
        done: dict[int, Instances] = {}
        next_number = 0

        def predict_waiting(shape: tuple[int, ...]) -> None:
            numbers, batch = zip(*waiting.pop(shape), strict=True)
            done.update(zip(numbers, self._predict_batch(list(batch)), strict=True))

        for number, image in enumerate(inputs):
            shape = self._padded_shape(image["image"])
            waiting.setdefault(shape, []).append((number, image))
            if len(waiting[shape]) == batch_size:
                predict_waiting(shape)
            elif sum(map(len, waiting.values())) + len(done) >= _MAX_WAITING_BATCHES * batch_size:
                predict_waiting(min(waiting, key=lambda key: waiting[key][0][0]))
            while next_number in done:
                yield done.pop(next_number)
                next_number += 1
        for shape in list(waiting):
            predict_waiting(shape)
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
                self._postprocess(_to_float32(found.to("cpu")), *output_size(image, found))
                for image, found in zip(inputs, raw, strict=True)
            ]

    def _padded_shape(self, image: torch.Tensor) -> tuple[int, ...]:
        step = max(self.model.backbone.size_divisibility, 1)
        return tuple(-(-side // step) * step for side in image.shape[-2:])


def _to_float32(found: Instances) -> Instances:
    """Casts raw results to float32. In autocast's precision, the pasted masks of large objects would be off by a pixel or two."""
    if found.has("pred_keypoint_heatmaps"):  # (R, K, 56, 56): the keypoints are decoded already
        found.remove("pred_keypoint_heatmaps")
    for name, value in found.get_fields().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            found.set(name, value.float())
    return found
