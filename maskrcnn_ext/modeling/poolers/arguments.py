"""Checks of what poolers are given, and the answer to what they cannot take."""

from __future__ import annotations

from collections.abc import Sequence

from maskrcnn_ext.errors import InputError

# The two conventions of RoIAlign: whether the centre of the first pixel is at 0.5 or at 0.
ALIGNED = {"ROIAlignV2": True, "ROIAlign": False}


def as_pair(output_size: int | Sequence[int]) -> tuple[int, int]:
    """Returns (h, w) from a single size, a pair, or a config's list of two."""
    if isinstance(output_size, int):
        return output_size, output_size
    height, width = output_size
    return height, width


def as_pair_of_levels(pooler: object, output_size: int | Sequence[int], scales: Sequence[float]) -> tuple[int, int]:
    """As :func:`as_pair`, for poolers that leave the levels to Detectron2's loop over them, which makes room for squares alone.

    Raises:
        InputError: several levels, and not a square.
    """
    height, width = as_pair(output_size)
    if height != width and len(scales) > 1:
        raise InputError(
            f"{type(pooler).__name__} of several levels is square: output_size={[height, width]}; set one number, or take FastROIPooler"
        )
    return height, width


def require_one_of(pooler: object, option: str, value: str | None, valid: Sequence[str | None]) -> None:
    """Raises InputError, with the valid values, where an option has another one."""
    if value not in valid:
        raise InputError(
            f"{type(pooler).__name__} has no {option}={value!r}: set it to one of {', '.join(map(repr, valid))}"
        )


def require_channels(pooler: object, built_for: int, got: int) -> None:
    """Raises InputError, with the override that mends it, where features do not have the channels of a pooler's layers."""
    if got != built_for:
        raise InputError(
            f"{type(pooler).__name__} was built for {built_for} channels and got {got}: set channels={got} on this pooler "
            f"(model.roi_heads.mask_pooler.channels={got}, box_pooler, or pooler on C4)"
        )
