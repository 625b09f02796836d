"""TorchScript: for libtorch, with torchvision's operators."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from maskrcnn_ext.interop.export import Options
from maskrcnn_ext.interop.export.recipe import Recipe, recipe_file
from maskrcnn_ext.interop.export.tracing import example, exportable, quiet, tracing


def export(model: nn.Module, recipe: Recipe, output: Path, options: Options) -> Path:  # noqa: ARG001
    """Writes ``output``, and the recipe into the .json beside it.

    Args:
        model: a GeneralizedRCNN in evaluation mode; the file's tensors are on its device.
        recipe: of the model.
        output: the file; its folder is made.
        options: none is heard.

    Raises:
        InputError: the model cannot be exported.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with quiet(), torch.no_grad(), tracing(model):
        traced = torch.jit.trace(
            exportable(model, recipe.batched), (example(model, recipe.batched),), check_trace=False
        )
        traced.save(str(output))
    recipe_file(output).write_text(recipe.to_json(), encoding="utf-8")
    return output
