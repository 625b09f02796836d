"""The layers of an optimized model: which fused layer replaces a convolution, transposed convolution or fully connected layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_ext.inference.optimization.convolution import (
    FusedConv2d,
    FusedUpsampling,
    GroupNormConv2d,
    as_detectron2,
    is_fusible_upsampling,
    is_group_norm_conv,
)
from maskrcnn_ext.ops.workspace import Workspace

# Layers whose outputs are decoded; they stay in float32.
FLOAT32_LAYERS = ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "predictor", "score_lowres")


class CastInput(nn.Module):
    """A layer that casts its input to the dtype of its weights."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        """Casts the weights of `layer` to `dtype`, in place."""
        super().__init__()
        self.layer, self.dtype = layer.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output of the layer."""
        out: Tensor = self.layer(x.to(self.dtype))
        return out


class FusedLayers:
    """Makes the fused layers of a part of a model, in float32 or bf16."""

    def __init__(self, dtype: torch.dtype, workspace: Workspace) -> None:
        """Sets the dtype of the layers, and the memory that they share."""
        self.dtype, self.workspace = dtype, workspace

    def conv(self, conv: nn.Module, name: str = "", *, relu: bool = False) -> FusedConv2d:
        """Returns the fused form of a convolution for which ``is_fusible_conv`` is true.

        Args:
            conv: the convolution.
            name: its name in the module that it belongs to.
            relu: whether to apply a ReLU even if `conv` has none.
        """
        return FusedConv2d(conv, dtype=self._dtype_of(name), workspace=self.workspace, relu=relu)

    def layer(self, layer: nn.Module, name: str) -> nn.Module | None:
        """Returns the fused form of a transposed convolution, fully connected layer or convolution with group normalisation.

        None to keep the layer.
        """
        if is_group_norm_conv(layer):
            return GroupNormConv2d(self.conv(as_detectron2(layer), name), layer.norm, relu=layer.activation is not None)
        if is_fusible_upsampling(layer):
            return FusedUpsampling(layer, dtype=self.dtype, workspace=self.workspace)
        if type(layer) in (nn.Linear, nn.ConvTranspose2d) and self.dtype != torch.float32:
            return CastInput(layer, self._dtype_of(name))
        return None

    def _dtype_of(self, name: str) -> torch.dtype:
        return torch.float32 if name in FLOAT32_LAYERS else self.dtype
