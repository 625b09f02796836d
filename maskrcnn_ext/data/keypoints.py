"""Left and right of a keypoint skeleton: what a mirrored image does to it."""

from __future__ import annotations

from collections.abc import Sequence


def flip_map(keypoint_names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs the keypoints that a horizontal flip exchanges: ``left_x`` with ``right_x``, for the names that have both."""
    names = set(keypoint_names)
    pairs = ((name, name.replace("left", "right", 1)) for name in keypoint_names if "left" in name)
    return [(left, right) for left, right in pairs if right in names]


def hflip_indices(names: str | Sequence[str]) -> list[int]:
    """Returns which keypoint each one becomes in a mirrored image, from the flip map of a loaded data set's metadata."""
    from detectron2.data.detection_utils import create_keypoint_hflip_indices

    indices: list[int] = create_keypoint_hflip_indices([names] if isinstance(names, str) else list(names))
    return indices
