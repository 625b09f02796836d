"""Keypoint skeletons: names, pairs exchanged by a horizontal flip, links to draw, and sigmas for OKS."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError

# The number of keypoints that the default sigmas of Detectron2 and pycocotools are for.
_COCO_KEYPOINTS = 17
# Names of the left side, and of the right: as a part of a name, or a single letter between others.
_LEFT = re.compile(r"left|Left|LEFT|(?<![^\W\d_])[lL](?![^\W\d_])")
_RIGHT = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}


@dataclass(frozen=True)
class Skeleton:
    """Describes the keypoints of a data set's objects to Detectron2 and to the evaluation. Accepts lists as well, as in YAML.

    Attributes:
        names: the keypoints in the order of the annotations.
        flip_map: pairs of names that a horizontal flip exchanges; None for those that differ by "left" and "right", see
            :func:`flip_map`.
        sigmas: the spread of annotators at each keypoint, relative to the object's size (cocodataset.org/#keypoints-eval); empty for
            COCO's sigmas, which exist for its 17 keypoints only.
        links: pairs of names to draw a line between.

    Example:
        >>> Skeleton(["nose", "left_ear", "right_ear"]).flip_map
        (('left_ear', 'right_ear'),)
    """

    names: Sequence[str]
    flip_map: Sequence[Sequence[str]] | None = None
    sigmas: Sequence[float] = ()
    links: Sequence[Sequence[str]] = ()

    def __post_init__(self) -> None:
        """Checks the values and converts lists to tuples, so that equal skeletons compare equal.

        Raises:
            InputError: a duplicate name, a pair that is not two of the names, or sigmas that are not one positive number per name.
        """
        names = _texts("names", self.names)
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None or not names:
            raise InputError("skeleton: `names` " + ("is empty" if double is None else f"has {double!r} twice"))
        sigmas = tuple(self.sigmas)
        if sigmas and len(sigmas) != len(names):
            raise InputError(f"skeleton: {len(sigmas)} `sigmas` for {len(names)} `names`: give one for each, or none")
        for sigma in sigmas:
            if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma < float("inf"):
                raise InputError(f"skeleton: `sigmas` has {sigma!r}, expected numbers above 0, such as 0.05")
        mirrored = flip_map(names) if self.flip_map is None else _pairs("flip_map", self.flip_map, names)
        moved = [name for pair in mirrored for name in pair]
        if len(set(moved)) < len(moved):
            twice = next(name for name in moved if moved.count(name) > 1)
            raise InputError(f"skeleton: `flip_map` has {twice!r} twice: a flip exchanges it with one other keypoint")
        links = _pairs("links", self.links, names)
        for key, value in (("names", names), ("flip_map", tuple(mirrored)), ("sigmas", sigmas), ("links", links)):
            object.__setattr__(self, key, value)

    def metadata(self) -> dict[str, Any]:
        """Returns the entries of Detectron2's metadata for the skeleton, and ``keypoint_oks_sigmas`` if there are sigmas."""
        entries: dict[str, Any] = {
            "keypoint_names": list(self.names),
            "keypoint_flip_map": [tuple(pair) for pair in self.flip_map or ()],
        }
        if self.links:
            entries["keypoint_connection_rules"] = [
                (a, b, _color(index, len(self.links))) for index, (a, b) in enumerate(self.links)
            ]
        if self.sigmas:
            entries["keypoint_oks_sigmas"] = list(self.sigmas)
        return entries


def flip_map(keypoint_names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the pairs of keypoints that a horizontal flip exchanges: ``left_x`` and ``right_x``, or ``l_x`` and ``r_x``, if both exist.

    Example:
        >>> flip_map(["nose", "left_ear", "right_ear", "left_paw", "Eye L", "Eye R"])
        [('left_ear', 'right_ear'), ('Eye L', 'Eye R')]
    """
    names = set(keypoint_names)
    pairs = ((name, _LEFT.sub(lambda found: _RIGHT[found[0]], name, count=1)) for name in keypoint_names)
    return [(left, right) for left, right in pairs if right != left and right in names]


def hflip_indices(names: str | Sequence[str]) -> list[int]:
    """Returns, for each keypoint, the index of its counterpart in a horizontally flipped image.

    Args:
        names: names of loaded data sets, whose metadata has the flip map.
    """
    from detectron2.data.detection_utils import create_keypoint_hflip_indices

    indices: list[int] = create_keypoint_hflip_indices([names] if isinstance(names, str) else list(names))
    return indices


def check_sigmas(sigmas: Sequence[float], *, predicted: int, annotated: int) -> None:
    """Raises before an evaluation if OKS cannot be computed.

    Args:
        sigmas: the evaluator's sigmas; empty for COCO's 17.
        predicted: number of keypoints of a prediction.
        annotated: number of keypoints of the ground truth.

    Raises:
        InputError: the three numbers differ.
    """
    if predicted != annotated:
        raise InputError(
            f"the model predicts {plural(predicted, 'keypoint')} and the data set has {annotated}: set "
            f"model.roi_heads.keypoint_head.num_keypoints={annotated}"
        )
    if (len(sigmas) or _COCO_KEYPOINTS) != annotated:
        has = f"{len(sigmas)} are set" if sigmas else f"COCO's are for {_COCO_KEYPOINTS}"
        raise InputError(
            f"OKS needs a sigma for each of the {annotated} keypoints and {has}: register the data set with "
            "skeleton=Skeleton(names, sigmas=[...]) or set dataloader.evaluator.kpt_oks_sigmas"
        )


def _texts(key: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise InputError(f"skeleton: `{key}` is {values!r:.100}, expected a list of names")
    return tuple(values)


def _pairs(key: str, pairs: Sequence[Sequence[str]], names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    found = tuple(_texts(key, pair) for pair in pairs)
    for pair in found:
        unknown = next((name for name in pair if name not in names), None)
        if len(pair) != 2 or pair[0] == pair[1] or unknown is not None:
            fault = f"{unknown!r} is not among the `names`" if unknown is not None else "expected two names"
            raise InputError(f"skeleton: `{key}` has {list(pair)}: {fault}")
    return found


def _color(index: int, count: int) -> tuple[int, int, int]:
    """Returns (R, G, B), 0 to 255, of a link for Detectron2's Visualizer: hues evenly spaced."""
    red, green, blue = colorsys.hsv_to_rgb(index / count, 0.75, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)
