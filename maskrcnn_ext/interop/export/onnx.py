"""Writes ONNX files with the whole detector for any height and width, and from them 8-bit models and OpenVINO's files."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.compat import quiet_onnx_exporter
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import Options
from maskrcnn_ext.interop.export.graph import output_names
from maskrcnn_ext.interop.export.interpolation import PortableInterpolation
from maskrcnn_ext.interop.export.recipe import METADATA_KEY, Recipe, input_name
from maskrcnn_ext.interop.export.tracing import example_input, make_exportable, no_tracer_warnings, traceable_len

# RoiAlign of earlier opsets has no half-pixel offset, and the exporter drops Detectron2's with no more than a warning.
MIN_OPSET = 16
# The layers whose outputs become boxes and masks stay in 32 bits.
_FULL_PRECISION = ("objectness_logits", "anchor_deltas", "box_predictor", "/predictor/")
_QUANTIZED_OPS = ["Conv", "Gemm"]


def export_onnx(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:
    """Writes an .onnx file whose metadata hold the recipe.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: of the model.
        output: the file; its folder is made.
        options: ``opset``, and ``calibration`` for 8 bits.

    Raises:
        InputError: the model cannot be exported, the opset is too low, or a library is missing.
    """
    if options.opset < MIN_OPSET:
        raise InputError(
            f"opset {options.opset}: RoIAlign would be half a pixel off, as opsets below {MIN_OPSET} lack its offset: set --opset 17"
        )
    require_onnx()
    trace(model, output, options.opset, recipe.batched)
    write_metadata(output, replace(recipe, quantized=bool(options.calibration)))
    if options.calibration:
        quantize(output, recipe, options.calibration)
    return output


def export_openvino(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:
    """Writes OpenVINO's .xml file and the .bin beside it, converted from ONNX; the recipe is in ``rt_info``.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: of the model.
        output: the .xml file; its folder is made.
        options: as for :func:`export_onnx`.

    Raises:
        InputError: the model cannot be exported, or a library is missing.
    """
    openvino = require("openvino", extra="openvino", purpose="export to OpenVINO")
    if output.suffix != ".xml":
        raise InputError(f"{output.name}: OpenVINO's files end in .xml")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        converted = openvino.convert_model(export_onnx(model, recipe, Path(folder) / "model.onnx", options))
        converted.set_rt_info(replace(recipe, quantized=bool(options.calibration)).to_json(), METADATA_KEY)
        openvino.save_model(converted, output, compress_to_fp16=False)
    try:
        openvino.Core().read_model(output)
    except RuntimeError:  # OpenVINO does not notice a full disk
        raise OSError(errno.EIO, "OpenVINO could write only a part", str(output)) from None
    return output


def require_onnx() -> Any:
    """Returns the package ``onnx``.

    Raises:
        InputError: it is missing.
    """
    return require("onnx", extra="onnx", purpose="export to ONNX")


def trace(model: nn.Module, output: Path, opset: int, batched: bool = False) -> None:
    """Writes a model's graph, without the metadata.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        output: the file; its folder is made.
        opset: ONNX's operator set.
        batched: whether the graph takes several images a call.

    Raises:
        InputError: a part of the model cannot be expressed in ONNX's operators.
    """
    names = list(output_names(model, batched))
    sides = {0: "number", 2: "height", 3: "width"} if batched else {1: "height", 2: "width"}
    axes = {input_name(batched): sides, **{name: {0: "detections"} for name in names}}
    output.parent.mkdir(parents=True, exist_ok=True)
    graph, images = make_exportable(model, batched), example_input(model, batched)
    with traceable_len(model):
        write_graph(graph, images, output, [input_name(batched)], names, axes, opset)
    with torch.no_grad():
        _fix_output_sides(output, [value.shape for value in graph(images)])


def write_graph(
    module: nn.Module,
    example: Tensor,
    output: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
    opset: int,
) -> None:
    """Writes a module of one input as an ONNX graph.

    Args:
        module: in evaluation mode.
        example: an input to trace with.
        output: the file.
        inputs: names of the inputs.
        outputs: names of the outputs.
        axes: names of the axes of inputs and outputs that may have any length.
        opset: ONNX's operator set.

    Raises:
        InputError: the module cannot be expressed in ONNX's operators.
    """
    with no_tracer_warnings(), quiet_onnx_exporter(), torch.no_grad(), PortableInterpolation():
        try:
            torch.onnx.export(
                module,
                (example,),
                str(output),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=opset,
                dynamo=False,
            )
        except (RuntimeError, ValueError) as error:  # the exporter's errors derive from these
            raise InputError(
                f"{output.name}: ONNX of opset {opset} cannot hold a part of this model ({one_line(error):.200})"
            ) from error


def write_metadata(file: Path, recipe: Recipe) -> None:
    """Writes the recipe to the metadata of an .onnx file."""
    onnx = require_onnx()
    proto = onnx.load(str(file))
    onnx.helper.set_model_props(proto, {METADATA_KEY: recipe.to_json()})
    proto.producer_name = "maskrcnn_ext"
    onnx.save(proto, str(file))


def quantize(file: Path, recipe: Recipe, images: Sequence[np.ndarray]) -> None:
    """Quantizes the convolutions and fully connected layers of an .onnx file to 8 bits, all but the last ones.

    Inputs and outputs stay in 32 bits. Pairs of QuantizeLinear and DequantizeLinear surround the quantized layers (the "QDQ"
    form, which ONNX Runtime, OpenVINO and TensorRT read).

    Args:
        file: the .onnx file, which is replaced.
        recipe: of the model.
        images: (H, W, C) as the mapper reads them, on which the ranges of values are measured; a few dozen are enough.

    Raises:
        InputError: a library is missing.
    """
    onnx = require_onnx()
    quantization = require("onnxruntime.quantization", extra="onnx", purpose="quantization")
    preparation = require("onnxruntime.quantization.shape_inference", extra="onnx", purpose="quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self._inputs: Iterator[dict[str, Any]] = (
                {input_name(recipe.batched): _calibration_input(image, recipe)} for image in images
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self._inputs, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Folds the norms into the convolutions.
        preparation.quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        nodes = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type in _QUANTIZED_OPS]
        quantization.quantize_static(
            str(prepared),
            str(file),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED_OPS,
            nodes_to_quantize=[name for name in nodes if not any(part in name for part in _FULL_PRECISION)],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def _calibration_input(image: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Returns the model's input for an image of the mapper. The recipe expects OpenCV's order of channels."""
    pixels = recipe.prepare(image[:, :, ::-1] if recipe.image_format == "RGB" else image)
    return pixels[None] if recipe.batched else pixels


def _fix_output_sides(file: Path, shapes: list[torch.Size]) -> None:
    """Restores the sizes that the exporter loses: of an output, only the number of detections varies.

    Raises:
        InputError: the graph's outputs have other ranks than the model's.
    """
    onnx = require_onnx()
    proto = onnx.load(str(file))
    for value, shape in zip(proto.graph.output, shapes, strict=True):
        dimensions = value.type.tensor_type.shape.dim
        if len(dimensions) != len(shape):  # runtimes would refuse the file
            raise InputError(
                f"{file.name}: ONNX's exporter mistakes the shape of {value.name}, so a part of this model cannot be exported to ONNX: "
                "choose another backbone"
            )
        for dimension, side in zip(dimensions[1:], shape[1:], strict=True):
            dimension.dim_value = side
    onnx.save(proto, str(file))
