"""The base class of the RoI poolers: the arguments of Detectron2's ROIPooler, checked, and pooling level by level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from maskrcnn_ext.errors import InputError

# RoIAlign's two conventions: whether the centre of the first pixel is at 0.5 or at 0.
ALIGNED = {"ROIAlignV2": True, "ROIAlign": False}

# Pools RoIs (M, 5) from one feature map: (features, rois, spatial_scale=...) -> (M, C, h, w).
LevelOperation = Callable[..., Tensor]


class BasePooler(ROIPooler):
    """A pooler with the arguments of Detectron2's ROIPooler, for ``mask_pooler`` and ``box_pooler`` alike.

    ``forward`` takes feature maps (N, C, H_l, W_l), one a level, and N ``Boxes`` in pixels of the input image. It returns (M, C, h, w),
    M: boxes of all images. A subclass that pools level by level implements :meth:`level_operation`; Detectron2's ``forward`` then assigns
    the boxes to levels.
    """

    # The names that `pooler_type` may have.
    pooler_types: ClassVar[Sequence[str]] = tuple(ALIGNED)
    # Whether several levels need a square output, as Detectron2's loop over the levels does.
    needs_square: ClassVar[bool] = True
    # Added to `canonical_level` before Detectron2 rounds the level down.
    level_shift: ClassVar[float] = 0

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        """Checks the arguments of every pooler and stores them.

        Args:
            output_size: bins along the height and the width: one number or a pair. Poolers that loop over several levels need a square.
            scales: 1 / stride of each level.
            sampling_ratio: samples per bin and axis; 0 takes as many as a bin has pixels, rounded up.
            pooler_type: "ROIAlignV2" puts the centre of the first pixel at 0.5, "ROIAlign" at 0.
            canonical_box_size: square root of the area, in pixels, of a box that belongs to ``canonical_level``.
            canonical_level: log2 of that level's stride.

        Raises:
            InputError: an unknown ``pooler_type``, or no square and several levels.
        """
        require_one_of(self, "pooler_type", pooler_type, self.pooler_types)
        height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
        if self.needs_square and height != width and len(scales) > 1:
            raise InputError(
                f"{type(self).__name__} on several levels needs a square: output_size={[height, width]}; set one number, or use "
                "FastROIPooler"
            )
        level = canonical_level + self.level_shift
        super().__init__((height, width), list(scales), sampling_ratio, pooler_type, canonical_box_size, level)
        self.scales = list(scales)
        self.sampling_ratio = sampling_ratio
        self.aligned = ALIGNED.get(pooler_type, False)
        operation = self.level_operation()
        if operation is not None:
            self.level_poolers = nn.ModuleList(_LevelPooler(operation, scale) for scale in scales)

    def level_operation(self) -> LevelOperation | None:
        """Returns what pools a level instead of RoIAlign, or None."""
        return None


class _LevelPooler(nn.Module):
    def __init__(self, operation: LevelOperation, scale: float) -> None:
        super().__init__()
        self.operation = operation
        self.scale = scale

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        return self.operation(features, rois, spatial_scale=self.scale)


def require_one_of(pooler: object, option: str, value: str | None, valid: Sequence[str | None]) -> None:
    """Raises InputError, with the valid values, if an option has another value."""
    if value not in valid:
        raise InputError(
            f"{type(pooler).__name__} has no {option}={value!r}: set it to one of {', '.join(map(repr, valid))}"
        )


def require_channels(pooler: object, built_for: int, got: int) -> None:
    """Raises InputError, with the override that fixes it, if features do not have the number of channels of a pooler's layers."""
    if got != built_for:
        raise InputError(
            f"{type(pooler).__name__} was built for {built_for} channels and got {got}: set channels={got} on this pooler "
            f"(model.roi_heads.mask_pooler.channels={got}, box_pooler, or pooler on C4)"
        )
