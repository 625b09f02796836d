"""Runs exported models, all with one call, in the runtimes that they were exported for. Detectron2 is not needed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, overload

import cv2
import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.data.formats.text_files import read_json
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.pt2 import load_program
from maskrcnn_ext.interop.export.recipe import METADATA_KEY, Recipe, input_name, recipe_file, scale_boxes
from maskrcnn_ext.interop.export.standalone import opencv_infer
from maskrcnn_ext.interop.export.standalone.paste import keypoints, paste, paste_whole_pixels

Array = np.ndarray
# The objects of an image: see :meth:`Runtime.__call__`.
Found = dict[str, Any]


class Runtime:
    """Runs an exported model. :func:`open_model` makes the subclass for a file.

    Attributes:
        file: the model's file or folder.
        recipe: how an image becomes the model's input, and the meaning of its outputs.
    """

    recipe: Recipe

    def __init__(self, file: Path) -> None:
        """Subclasses load the file and set `recipe`."""
        self.file = file

    @property
    def batched(self) -> bool:
        """Whether the model takes several images in one call."""
        return self.recipe.batched

    @property
    def quantized(self) -> bool:
        """Whether the model computes in 8 bits."""
        return self.recipe.quantized

    @overload
    def __call__(self, image: Array) -> Found: ...

    @overload
    def __call__(self, image: Sequence[Array]) -> list[Found]: ...

    def __call__(self, image: Array | Sequence[Array]) -> Found | list[Found]:
        """Detects the objects of one image or of several; a batched model takes several in one call.

        Args:
            image: (H, W, 3) uint8 in OpenCV's order blue, green, red, or what :meth:`.recipe.Recipe.prepare` takes; or a sequence of
                them. The images of a batch must have one size after resizing.

        Returns:
            R objects by descending score: ``boxes`` (R, 4) float32, x0, y0, x1, y1 in pixels of the image; ``scores`` (R,) float32;
            ``classes`` (R,) int64. If the model predicts them: ``masks``, R pairs of a window's origin (x, y) and its pixels (h, w)
            bool; ``mask_scores`` (R,); ``keypoints`` (R, K, 3), x, y and score. For a sequence of images, a list.

        Raises:
            InputError: the model cannot take the image, or the images of a batch differ in size.
        """
        if isinstance(image, np.ndarray):
            return self._detect([image])[0]
        return self._detect(image)

    def _detect(self, images: Sequence[Array]) -> list[Found]:
        inputs = [self.recipe.prepare(image) for image in images]
        if not self.batched:
            outputs = [self._run(pixels) for pixels in inputs]
        else:
            sizes = sorted({pixels.shape[:0:-1] for pixels in inputs})
            if len(sizes) > 1:
                shapes = ", ".join(f"{width} x {height}" for width, height in sizes)
                raise InputError(f"{self.file}: images of {shapes} after resizing: a batch must have one size")
            outputs = _split(self._run(np.stack(inputs)), len(inputs)) if inputs else []
        return [
            self._in_image(found, pixels.shape[1:], image.shape[:2])
            for found, pixels, image in zip(outputs, inputs, images, strict=True)
        ]

    def _in_image(self, found: dict[str, Array], inner: tuple[int, int], outer: tuple[int, int]) -> Found:
        """Converts outputs for an input of size `inner`, height and width, to objects in an image of size `outer`."""
        boxes = scale_boxes(self.recipe, found["boxes"], inner, outer)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        result: Found = {"boxes": boxes[kept]}
        for name in ("scores", "classes", "mask_scores"):
            if name in found:
                result[name] = found[name][kept]
        if "masks" in found:
            draw = paste if self.recipe.masks == "detectron2" else paste_whole_pixels
            pairs = zip(found["masks"][kept], result["boxes"], strict=True)
            result["masks"] = [draw(mask, box, outer, self.recipe.mask_threshold) for mask, box in pairs]
        if "keypoint_heatmaps" in found:
            points = keypoints(found["keypoint_heatmaps"][kept], found["boxes"][kept])
            result["keypoints"] = points * np.array([outer[1] / inner[1], outer[0] / inner[0], 1], np.float32)
        return result

    def _run(self, pixels: Array) -> dict[str, Array]:
        """Returns the graph's outputs by name for an input (C, H, W) float32, or (N, C, H, W) if batched."""
        raise NotImplementedError


class OnnxRuntime(Runtime):
    """Runs an .onnx file in ONNX Runtime on the CPU."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        """Loads the model; see :func:`open_model`."""
        super().__init__(file)
        onnxruntime = require("onnxruntime", extra="onnx", purpose=f"running {file}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base class
            raise InputError(f"{file}: ONNX Runtime cannot read it ({_one_line(error)})") from error
        self.recipe = Recipe.from_json(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, ""), file)

    def _run(self, pixels: Array) -> dict[str, Array]:
        names = self.recipe.output_names
        return dict(zip(names, self._session.run(names, {input_name(self.batched): pixels}), strict=True))


class OpenVinoRuntime(Runtime):
    """Runs an .xml file in OpenVINO on the CPU."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        """Loads the model; see :func:`open_model`."""
        super().__init__(file)
        openvino = require("openvino", extra="openvino", purpose=f"running {file}")
        # By default OpenVINO computes in 16 bits on processors that support it, which changes the detections.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = openvino.Core().read_model(file)
            self.recipe = Recipe.from_json(
                str(model.get_rt_info(METADATA_KEY).value) if model.has_rt_info(METADATA_KEY) else "", file
            )
            self._model = openvino.Core().compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise InputError(f"{file}: OpenVINO cannot read it ({_one_line(error)})") from error

    def _run(self, pixels: Array) -> dict[str, Array]:
        results = self._model({input_name(self.batched): pixels})
        return {name: results[name] for name in self.recipe.output_names}


class TorchRuntime(Runtime):
    """Runs a .ts file of TorchScript or a .pt2 file of torch.export in PyTorch."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        """Loads the model; see :func:`open_model`."""
        super().__init__(file)
        try:
            import torch
            import torchvision  # noqa: F401  # the operators nms and roi_align
        except ImportError as error:
            raise InputError(f"running {file} needs torch and torchvision: pip install torch torchvision") from error
        self._torch: ModuleType = torch
        if threads:
            torch.set_num_threads(threads)
        described = recipe_file(file)
        if not described.is_file():
            raise InputError(
                f"{file}: {described.name} is missing beside it: copy both files that `maskrcnn-ext export` has written"
            )
        self.recipe = Recipe.from_json(described.read_text(encoding="utf-8"), described)
        try:
            self._model: Any = load_program(file) if file.suffix == ".pt2" else torch.jit.load(str(file))
        except InputError:
            raise
        except Exception as error:  # torch raises errors of many types for damaged files
            raise InputError(f"{file}: PyTorch cannot read it ({_one_line(error)})") from error

    def _run(self, pixels: Array) -> dict[str, Array]:
        with self._torch.no_grad():
            try:
                outputs = self._model(self._torch.from_numpy(pixels))
            # A guard of torch.export, which specialises on feature maps of one pixel.
            except AssertionError as error:
                size = f"{pixels.shape[-1]} x {pixels.shape[-2]}"
                raise InputError(
                    f"{self.file}: an input of {size}: torch.export's programs take more than 64 pixels a side"
                ) from error
        return dict(zip(self.recipe.output_names, (output.numpy() for output in outputs), strict=True))


class OpenCvRuntime(Runtime):
    """Runs a folder of .onnx files in OpenCV's DNN module."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        """Loads the model; see :func:`open_model`."""
        super().__init__(file)
        if threads:
            cv2.setNumThreads(threads)
        try:
            self._model = opencv_infer.load(file)
        except opencv_infer.InputError as error:
            raise InputError(str(error)) from error
        description = file / opencv_infer.DESCRIPTION
        if description.is_file():  # not with TensorFlow's pair of files
            content = {"output_names": [], **read_json(description)}
            names = [field.name for field in dataclasses.fields(Recipe)]
            values = {name: content[name] for name in names if name in content}
            self.recipe = Recipe.from_json(json.dumps(values), description)

    @property
    def batched(self) -> bool:
        """As :attr:`Runtime.batched`."""
        return False

    @property
    def quantized(self) -> bool:
        """As :attr:`Runtime.quantized`."""
        return False

    def _detect(self, images: Sequence[Array]) -> list[Found]:
        try:
            return [self._model(image) for image in images]
        except opencv_infer.InputError as error:
            raise InputError(str(error)) from error


def open_model(path: str | Path, threads: int = 0) -> Runtime:
    """Opens a model that :func:`maskrcnn_ext.interop.export.export` has written; the file's suffix selects the runtime.

    Args:
        path: the file, or the folder of OpenCV's files.
        threads: number of CPU threads; 0 for the runtime's default. For PyTorch and OpenCV it applies to the whole process.

    Raises:
        InputError: the path does not exist, its kind is unknown, or the runtime is not installed.

    Example::

        found = open_model("model.onnx")(cv2.imread("image.jpg"))
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file}: no such model")
    if file.is_dir():
        return OpenCvRuntime(file, threads)
    kinds: dict[str, type[OnnxRuntime | OpenVinoRuntime | TorchRuntime]] = {
        ".onnx": OnnxRuntime,
        ".xml": OpenVinoRuntime,
        ".ts": TorchRuntime,
        ".pt2": TorchRuntime,
    }
    if file.suffix not in kinds:
        raise InputError(f"{file}: expected {', '.join(kinds)}, or the folder of --to opencv")
    return kinds[file.suffix](file, threads)


def _split(outputs: dict[str, Array], count: int) -> list[dict[str, Array]]:
    """Returns the outputs of each of `count` images of a batch."""
    images = outputs.pop("image")
    return [{name: values[images == image] for name, values in outputs.items()} for image in range(count)]


def _one_line(error: Exception) -> str:
    """Returns an error's message as one line of at most 200 characters."""
    return f"{' '.join(str(error).split()):.200}"
