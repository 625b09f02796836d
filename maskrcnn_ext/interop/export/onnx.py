"""ONNX: one file with the whole detector, of any height and width."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from maskrcnn_ext.compat import quiet_onnx_exporter
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import Options
from maskrcnn_ext.interop.export.graph import output_names
from maskrcnn_ext.interop.export.recipe import KEY, Recipe, input_name
from maskrcnn_ext.interop.export.tracing import example, exportable, quiet, tracing

# From here on RoiAlign can have Detectron2's half a pixel; the exporter leaves it out below, with no more than a warning.
LEAST_OPSET = 16


def export(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:
    """Writes ``output``, an .onnx file whose metadata hold the recipe.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: of the model.
        output: the file; its folder is made.
        options: ``opset``, and ``calibration`` for 8 bits.

    Raises:
        InputError: the model cannot be exported, the opset is too low, or a library is missing.
    """
    if options.opset < LEAST_OPSET:
        raise InputError(
            f"opset {options.opset}: RoIAlign would be half a pixel off, which opsets below {LEAST_OPSET} cannot tell: set --opset 17"
        )
    require_onnx()
    trace(model, output, options.opset, recipe.batched)
    annotate(output, recipe)
    if options.calibration:
        from maskrcnn_ext.interop.export.quantization import quantize

        quantize(output, recipe, options.calibration)
    return output


def require_onnx() -> None:
    """Raises InputError where the package is missing."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise InputError('to write ONNX: pip install "maskrcnn_ext[onnx]"') from error


def trace(model: nn.Module, output: Path, opset: int, batched: bool = False) -> None:
    """Writes the graph alone, without the metadata.

    Args:
        model: see :func:`export`.
        output: the file.
        opset: of the file.
        batched: several images a call.

    Raises:
        InputError: a part of the model has no ONNX operators.
    """
    names = list(output_names(model, batched))
    sides = {0: "number", 2: "height", 3: "width"} if batched else {1: "height", 2: "width"}
    axes = {input_name(batched): sides, **{name: {0: "detections"} for name in names}}
    output.parent.mkdir(parents=True, exist_ok=True)
    graph, given = exportable(model, batched), example(model, batched)
    with tracing(model):
        write_graph(graph, given, output, [input_name(batched)], names, axes, opset)
    with torch.no_grad():
        _fix_sides(output, [found.shape for found in graph(given)])


def write_graph(
    module: nn.Module,
    given: Tensor,
    output: Path,
    inputs: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
    opset: int,
) -> None:
    """Writes what a module does with a tensor.

    Args:
        module: in evaluation mode.
        given: an example of its input.
        output: the file.
        inputs: names.
        outputs: names.
        axes: of inputs and outputs, those of any length, with names.
        opset: of the file.

    Raises:
        InputError: the module does something that ONNX has no operators for.
    """
    with quiet(), quiet_onnx_exporter(), torch.no_grad():
        try:
            torch.onnx.export(
                module,
                (given,),
                str(output),
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=opset,
                dynamo=False,
            )
        except (RuntimeError, ValueError) as error:  # the exporter's own errors are of these
            reason = " ".join(str(error).split())
            raise InputError(
                f"{output.name}: ONNX of opset {opset} cannot hold a part of this model ({reason:.200})"
            ) from error


def _fix_sides(file: Path, shapes: list[torch.Size]) -> None:
    """Writes down what the exporter has lost: of an output, only the number of detections is free."""
    import onnx

    proto = onnx.load(str(file))
    for value, shape in zip(proto.graph.output, shapes, strict=True):
        for dimension, side in zip(value.type.tensor_type.shape.dim[1:], shape[1:], strict=True):
            dimension.dim_value = side
    onnx.save(proto, str(file))


def annotate(file: Path, recipe: Recipe) -> None:
    """Writes the recipe into a model's metadata."""
    import onnx

    proto = onnx.load(str(file))
    onnx.helper.set_model_props(proto, {KEY: recipe.to_json()})
    proto.producer_name = "maskrcnn_ext"
    onnx.save(proto, str(file))
