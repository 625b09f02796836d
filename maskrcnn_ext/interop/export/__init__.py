"""Writes models for other runtimes: ONNX Runtime, OpenVINO, libtorch, torch.export and OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.common.files import atomic_files
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from maskrcnn_ext.interop.export.recipe import Recipe

# Target -> the written files.
TARGETS = {
    "onnx": "one .onnx file, opset 16 or more, for ONNX Runtime and what reads ONNX",
    "openvino": "an .xml and a .bin file for OpenVINO",
    "torchscript": "one .ts file for libtorch with torchvision's operators, and a .json beside it",
    "torch-export": "one .pt2 file for torch.export.load, and a .json beside it",
    "opencv": "a folder of three .onnx files for OpenCV's DNN module, with NumPy between them",
}
# Target -> the module here and its function, called as (model, recipe, output, options).
_WRITERS = {
    "onnx": ("onnx", "export_onnx"),
    "openvino": ("onnx", "export_openvino"),
    "torchscript": ("tracing", "export_torchscript"),
    "torch-export": ("tracing", "export_program"),
    "opencv": ("opencv", "export_opencv"),
}


@dataclass(frozen=True)
class Options:
    """Options of an export; each target uses those that it knows.

    Attributes:
        opset: ONNX's operator set, 16 or more (onnx, openvino, opencv).
        calibration: images (H, W, C) as the mapper reads them, on which the ranges of 8-bit values are measured; if empty, the
            model stays in 32 bits (onnx, openvino).

    Example:
        >>> Options(opset=18).calibration
        ()
    """

    opset: int = 17
    calibration: Sequence[np.ndarray] = ()


def export(model: nn.Module, recipe: Recipe, target: str, output: str | Path, options: Options | None = None) -> Path:
    """Writes a model for another runtime.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: how an image becomes the model's input, and the meaning of its outputs; see :func:`.recipe.build_recipe`.
        target: one of :data:`TARGETS`.
        output: the file, or the folder for OpenCV, to write; parent folders are made.
        options: of the export.

    Returns:
        The path written, which :func:`maskrcnn_ext.interop.export.runtimes.open_model` opens.

    Raises:
        InputError: the target is unknown, the model is optimized, a part of it cannot be exported, or a library is missing.

    Example::

        recipe = build_recipe(model, mapper, classes)
        export(model, recipe, "onnx", "model.onnx")
    """
    if target not in TARGETS:
        raise InputError(f"no target {target!r}: expected {', '.join(TARGETS)}")
    model.state_dict()  # that of an optimized model, whose kernels cannot be traced, raises InputError
    module, function = _WRITERS[target]
    write = getattr(import_module(f"{__name__}.{module}"), function)
    with atomic_files(Path(output)) as partial:
        write(model, recipe, partial, options or Options())
    return Path(output)
