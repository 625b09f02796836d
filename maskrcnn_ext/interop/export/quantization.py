"""8-bit weights and activations for a model in ONNX, by images that it is calibrated with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.recipe import Recipe, input_name

# What these layers give is what boxes and masks are made of: they stay in 32 bits.
_EXACT = ("objectness_logits", "anchor_deltas", "box_predictor", "/predictor/")
_QUANTISED = ["Conv", "Gemm"]


def quantize(file: Path, recipe: Recipe, images: Sequence[np.ndarray]) -> None:
    """Replaces a model's convolutions and fully connected layers by 8-bit ones, all but the last, with ranges measured on images.

    The graph keeps its inputs and outputs in 32 bits; pairs of QuantizeLinear and DequantizeLinear stand around them (the
    "QDQ" form, which ONNX Runtime, OpenVINO and TensorRT read).

    Args:
        file: an .onnx file, which is replaced.
        recipe: of the model.
        images: (H, W, C) as the mapper reads them; dozens are enough.

    Raises:
        InputError: a library is missing.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise InputError('to quantise: pip install "maskrcnn_ext[onnx]"') from error

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._inputs: Iterator[dict[str, Any]] = (
                {input_name(recipe.batched): _input(image, recipe)} for image in images
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self._inputs, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # The normalisations become part of the convolutions.
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        nodes = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type in _QUANTISED]
        quantize_static(
            str(prepared),
            str(file),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            nodes_to_quantize=[name for name in nodes if not any(part in name for part in _EXACT)],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _input(image: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The model's input of an image that the mapper has read: of RGB, the recipe makes it of OpenCV's order."""
    pixels = recipe.prepare(image[:, :, ::-1] if recipe.image_format == "RGB" else image)
    return pixels[None] if recipe.batched else pixels
