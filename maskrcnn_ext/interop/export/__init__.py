"""Models as files of other runtimes: one module a target, each with ``export(model, recipe, output, options) -> Path``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from maskrcnn_ext.interop.export.recipe import Recipe

# Target -> what is written; its module here is of its name (torch-export: torch_export).
TARGETS = {
    "onnx": "one .onnx file, opset 16 or more, for ONNX Runtime and what reads ONNX",
    "openvino": "an .xml and a .bin file for OpenVINO",
    "torchscript": "one .ts file for libtorch with torchvision's operators, and a .json beside it",
    "torch-export": "one .pt2 file for torch.export.load, and a .json beside it",
    "opencv": "a folder of three .onnx files for OpenCV's DNN module, with NumPy between them",
}


@dataclass(frozen=True)
class Options:
    """What the targets can be told.

    Attributes:
        opset: of ONNX, 16 or more.
        calibration: images, (H, W, C) as the mapper reads them, to quantise to 8 bits with; none leaves the model in 32.
    """

    opset: int = 17
    calibration: Sequence[np.ndarray] = ()


def export(model: nn.Module, recipe: Recipe, target: str, output: str | Path, options: Options | None = None) -> Path:
    """Writes a model for another runtime; returns what it wrote, which :func:`maskrcnn_ext.interop.export.runtimes.open_model` reads.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: what happens to an image before the model, and what its outputs mean.
        target: of :data:`TARGETS`.
        output: the file, or the folder, to write.
        options: see :class:`Options`.

    Raises:
        InputError: no such target, a part of the model cannot be exported, or a library is missing.
    """
    if target not in TARGETS:
        raise InputError(f"no target {target!r}: expected {', '.join(TARGETS)}")
    module = import_module(f"{__name__}.{target.replace('-', '_')}")
    written: Path = module.export(model, recipe, Path(output), options or Options())
    return written
