"""Models that can be served: training runs, ensembles of them, and exported files, all with the same two methods."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.standalone.opencv_infer import DESCRIPTION

EXPORTED_SUFFIXES = (".onnx", ".xml", ".ts", ".pt2")


class Detector(Protocol):
    """The interface that :class:`maskrcnn_ext.serving.answers.Answerer` needs.

    Attributes:
        name: of the model, for the page and ``/info``: the last two parts of its path, since clients need not know the server's folders.
        classes: the class names.
    """

    name: str
    classes: list[str]

    def pixels(self, content: bytes) -> np.ndarray:
        """Returns the pixels (H, W, C) of the bytes of an image file; raises InputError if they are not an image."""

    def detect(self, images: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """Returns the objects of each image as COCO results with ``category_id``, ``class``, ``bbox``, ``score`` and RLEs."""


@dataclass(frozen=True)
class ModelSource:
    """Which model to serve, and how to run it. It is small, so that processes can be started with it.

    Attributes:
        models: folders of runs or configs as for :class:`maskrcnn_ext.Predictor`, of which several are an ensemble; or one exported file,
            or the folder of ``export --to opencv``.
        weights: of a single config; None for its own.
        device: such as "cuda:1"; None for CUDA if there is a device, else the CPU. Exported files run on the CPU.
        dtype: as for :class:`maskrcnn_ext.Predictor`.
        optimize: as for :class:`maskrcnn_ext.Predictor`.
        threads: number of CPU threads; 0 for the default.
    """

    models: tuple[str, ...]
    weights: str | None = None
    device: str | None = None
    dtype: str = "fp32"
    optimize: bool = False
    threads: int = 0

    @property
    def is_exported(self) -> bool:
        """Whether the model is an exported one."""
        path = Path(self.models[0])
        return path.suffix in EXPORTED_SUFFIXES or (path / DESCRIPTION).is_file()

    def load(self) -> Detector:
        """Loads the model.

        Raises:
            InputError: it does not exist or cannot be used, or the settings do not fit it.

        Example::

            detector = ModelSource(("output/nuclei",)).load()
            (objects,) = detector.detect([detector.pixels(Path("cells.png").read_bytes())])
        """
        if self.is_exported:
            if self.models[1:] or self.weights or self.device or self.optimize or self.dtype != "fp32":
                raise InputError(
                    f"{self.models[0]} is an exported model: it is served alone, without weights, device, dtype and optimization"
                )
            return ExportedDetector(self.models[0], self.threads)
        return RunDetector(self)


class RunDetector:
    """Predicts with a run, or an ensemble of runs."""

    def __init__(self, source: ModelSource) -> None:
        """Loads the model; see :meth:`ModelSource.load`."""
        import torch

        from maskrcnn_ext.inference.base_predictor import BasePredictor
        from maskrcnn_ext.inference.ensemble import EnsemblePredictor
        from maskrcnn_ext.inference.predictor import Predictor

        if source.threads:
            torch.set_num_threads(source.threads)
        if source.models[1:]:
            if source.weights:
                raise InputError(f"{source.weights}: {len(source.models)} models have their own weights")
            self._predictor: BasePredictor = EnsemblePredictor(
                source.models, device=source.device, dtype=source.dtype, optimize=source.optimize
            )
        else:
            self._predictor = Predictor(
                source.models[0],
                source.weights,
                device=source.device,
                dtype=source.dtype,
                optimize=source.optimize,
            )
        self.name = ", ".join(map(_short, source.models))
        self.classes = [str(name) for name in self._predictor.classes.names]
        self.pixels = self._predictor.pixels

    def detect(self, images: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """Detects the objects of images; see :class:`Detector`."""
        from maskrcnn_ext.inference.results import to_coco

        predictor = self._predictor
        inputs = (predictor.prepare(image) for image in images)
        answers = []
        for found in predictor.run(inputs, batch_size=max(len(images), 1)):
            objects = to_coco(found, None, predictor.classes.category_ids)
            for one, category in zip(objects, found.pred_classes.tolist(), strict=True):
                one["class"] = self.classes[category]
            answers.append(objects)
        return answers


class ExportedDetector:
    """Runs an exported model. Files of ONNX and OpenVINO need neither PyTorch nor Detectron2."""

    def __init__(self, file: str, threads: int = 0) -> None:
        """Opens the model; see :meth:`ModelSource.load`."""
        from maskrcnn_ext.interop.export.runtimes import open_model

        self._model = open_model(file, threads)
        self._recipe = self._model.recipe
        self.name = _short(file)
        self.classes = list(self._recipe.class_names)

    def pixels(self, content: bytes) -> np.ndarray:
        """Returns pixels in OpenCV's order of channels, which runtimes take; see :class:`Detector`."""
        from maskrcnn_ext.data.images.memory import convert_image

        if content[:4] == b"\x89PNG" and content[24:26] in (b"\x10\x02", b"\x10\x06"):  # bit depth and colour type
            raise InputError("a PNG of 16-bit colours, which an exported model is not served with: serve the run")
        image_format = self._recipe.image_format
        try:
            with Image.open(io.BytesIO(content)) as image:
                return convert_image(image, "BGR" if image_format == "RGB" else image_format)
        except InputError:
            raise
        except Exception as error:  # decoders raise errors of many types for broken files
            raise InputError(f"cannot be read as an image ({one_line(error):.200})") from error

    def detect(self, images: Sequence[np.ndarray]) -> list[list[dict[str, Any]]]:
        """Detects the objects of images; see :class:`Detector`. Images of one size share a call if the model is batched."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            key = self._recipe.resized_sides(*image.shape[:2]) if self._model.batched else (index,)
            groups.setdefault(key, []).append(index)
        answers: list[list[dict[str, Any]]] = [[] for _ in images]
        for indices in groups.values():
            for index, found in zip(indices, self._model([images[index] for index in indices]), strict=True):
                answers[index] = self._objects(found, images[index].shape[:2])
        return answers

    def _objects(self, found: dict[str, Any], size: tuple[int, int]) -> list[dict[str, Any]]:
        from maskrcnn_ext.data.formats.records import keypoints_to_pixel_indices
        from maskrcnn_ext.interop.export.standalone.opencv_infer import encode

        objects = []
        for index, (box, score, category) in enumerate(
            zip(found["boxes"].tolist(), found["scores"].tolist(), found["classes"].tolist(), strict=True)
        ):
            x0, y0, x1, y1 = box
            one = {
                "category_id": self._recipe.category_ids[category],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
                "class": self.classes[category],
            }
            if "masks" in found:
                one["segmentation"] = encode(found["masks"][index], size)
            if "mask_scores" in found:
                one["mask_score"] = float(found["mask_scores"][index])
            if "keypoints" in found:
                one["keypoints"] = keypoints_to_pixel_indices(found["keypoints"][index].ravel().tolist())
            objects.append(one)
        return objects


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])
