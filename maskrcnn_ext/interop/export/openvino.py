"""OpenVINO's .xml and .bin, by way of ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import Options, onnx
from maskrcnn_ext.interop.export.recipe import KEY, Recipe


def export(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:
    """Writes ``output``, an .xml file, and the .bin beside it; the recipe is in ``rt_info``.

    Args:
        model: a GeneralizedRCNN in evaluation mode.
        recipe: of the model.
        output: the .xml file; its folder is made.
        options: as for ONNX.

    Raises:
        InputError: the model cannot be exported, or a library is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise InputError('to write OpenVINO\'s files: pip install "maskrcnn_ext[openvino]"') from error
    if output.suffix != ".xml":
        raise InputError(f"{output}: OpenVINO's files end in .xml")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        converted = openvino.convert_model(onnx.export(model, recipe, Path(folder) / "model.onnx", options))
        converted.set_rt_info(recipe.to_json(), KEY)
        openvino.save_model(converted, output, compress_to_fp16=False)
    return output
