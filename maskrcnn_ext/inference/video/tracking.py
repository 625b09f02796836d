"""Tracks the objects of a video: each keeps its id from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from numpy.typing import NDArray

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import pairwise_iou
from maskrcnn_ext.ops.rle_segments import Segments

# Detections of a lower score do not continue a track either (ByteTrack's lower threshold).
_MIN_CONTINUING_SCORE = 0.1
# Weight of the newest displacement in a track's velocity.
_NEWEST_WEIGHT = 0.5


@dataclass(frozen=True)
class _Detection:
    """One detection. `index` is its position among those of the frame, `box` is x, y, width, height in pixels."""

    index: int
    category: int
    box: NDArray[np.float64]
    rle: dict[str, Any] | None


@dataclass
class _Track:
    """An object: its last detection, its velocity in (2,) pixels per frame, and the number of frames since."""

    id: int
    last: _Detection
    velocity: NDArray[np.float64] | None = None  # None after one detection
    unseen: int = 0

    def predict(self) -> _Detection:
        """Returns the detection that is expected in the next frame, at constant velocity."""
        if self.velocity is None:
            return self.last
        x, y = (self.velocity * (self.unseen + 1)).tolist()
        rle = None if self.last.rle is None else _shift_rle(self.last.rle, round(x), round(y))
        return replace(self.last, box=self.last.box + np.array([x, y, 0, 0]), rle=rle)

    def add(self, detection: _Detection) -> None:
        """Adds the detection of the current frame, which `unseen` counts already."""
        step = (_centre(detection.box) - _centre(self.last.box)) / self.unseen
        self.velocity = step if self.velocity is None else _NEWEST_WEIGHT * step + (1 - _NEWEST_WEIGHT) * self.velocity
        self.last, self.unseen = detection, 0


class Tracker:
    """Assigns ids to the objects of a video's frames by overlap. Each video needs its own tracker.

    The detections of a frame are assigned to the tracks of their class so that the sum of overlaps is largest (the Hungarian method), as
    in ByteTrack (arXiv:2110.06864, algorithm 1): first those of a high score, then those of a low score to the remaining tracks of the
    last frame. Detections of a low score start no track. The overlap is the IoU of the detection's mask with the track's last mask, moved
    at the track's velocity, or the IoU of boxes if there are no masks. Masks stay RLEs.

    Existing libraries track boxes or dense masks. `supervision` and `trackers` hold arrays of the image's size and depend on PyAV or a
    second OpenCV, `norfair` assigns greedily, `motpy` tracks boxes only, and Detectron2's tracker is on its main branch only.

    Example:
        >>> from detectron2.structures import Boxes
        >>> tracker = Tracker()
        >>> for x in (0.0, 1.0):
        ...     frame = Instances((20, 20), pred_boxes=Boxes([[x, 0, x + 8, 8]]))
        ...     frame.scores, frame.pred_classes = torch.ones(1), torch.zeros(1)
        ...     tracker.update(frame).track_ids
        tensor([1])
        tensor([1])
    """

    def __init__(self, *, min_score: float = 0.5, min_overlap: float = 0.2, max_unseen: int = 30) -> None:
        """Starts without tracks.

        Args:
            min_score: least score of a detection that starts a track.
            min_overlap: least IoU of a detection with its track, above 0 and up to 1.
            max_unseen: number of frames without a detection after which a track ends.
        """
        self._min_score = min_score
        self._min_overlap = min_overlap
        self._max_unseen = max_unseen
        self._tracks: list[_Track] = []
        self._count = 0
        self._size: tuple[int, int] | None = None

    def update(self, found: Instances) -> Instances:
        """Returns the next frame's detections that belong to a track, in their order, with ``track_ids`` (R,), int64, from 1.

        Args:
            found: the detections of the frame on the CPU: ``pred_boxes``, ``scores``, ``pred_classes``, and optionally ``pred_masks`` as
                :class:`maskrcnn_ext.ops.rle_masks.RLEMasks`.

        Raises:
            InputError: the frame has another size than the frames before.
        """
        if self._size not in (None, found.image_size):
            raise InputError(
                f"the frame has size {found.image_size} (height, width), those before {self._size}: use a new tracker for each video"
            )
        self._size = found.image_size
        detections, scores = _to_detections(found), found.scores.tolist()
        high = [detection for detection in detections if scores[detection.index] >= self._min_score]
        low = [
            detection for detection in detections if _MIN_CONTINUING_SCORE <= scores[detection.index] < self._min_score
        ]

        pairs = self._assign(self._tracks, high)
        matched = {track.id for track, _ in pairs}
        recent = [track for track in self._tracks if track.id not in matched and track.unseen == 0]
        pairs += self._assign(recent, low)

        for track in self._tracks:
            track.unseen += 1
        for track, detection in pairs:
            track.add(detection)
        self._tracks = [track for track in self._tracks if track.unseen <= self._max_unseen]
        ids = {detection.index: track.id for track, detection in pairs}
        for detection in high:
            if detection.index not in ids:
                self._count += 1
                ids[detection.index] = self._count
                self._tracks.append(_Track(self._count, detection))
        kept = found[torch.tensor(sorted(ids), dtype=torch.int64)]
        kept.track_ids = torch.tensor([ids[index] for index in sorted(ids)], dtype=torch.int64)
        return kept

    def _assign(self, tracks: Sequence[_Track], detections: Sequence[_Detection]) -> list[tuple[_Track, _Detection]]:
        """Assigns each detection to at most one track, and the other way round."""
        from scipy.optimize import linear_sum_assignment  # half a second, which most predictions need not spend

        overlaps = _ious(tracks, detections)
        overlaps[overlaps < self._min_overlap] = 0
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        return [(tracks[t], detections[d]) for t, d in zip(rows, columns, strict=True) if overlaps[t, d] > 0]


def _ious(tracks: Sequence[_Track], detections: Sequence[_Detection]) -> NDArray[np.float64]:
    """Returns the IoUs (T, D) of T tracks and D detections, 0 between different classes."""
    if not tracks or not detections:
        return np.zeros((len(tracks), len(detections)))
    predicted = [track.predict() for track in tracks]
    ious = pairwise_iou(_rles_or_boxes(predicted), _rles_or_boxes(detections))
    same_class = np.equal.outer([one.category for one in predicted], [one.category for one in detections])
    return np.where(same_class, ious, 0)


def _rles_or_boxes(detections: Sequence[_Detection]) -> list[dict[str, Any]] | NDArray[np.float64]:
    """Returns the RLEs of the detections, or their boxes if they have no masks."""
    rles = [detection.rle for detection in detections if detection.rle is not None]
    return rles or np.stack([detection.box for detection in detections])


def _shift_rle(rle: dict[str, Any], x: int, y: int) -> dict[str, Any]:
    """Returns a mask moved within its image as a new RLE; pixels that leave the image are cut off."""
    height, width = rle["size"]
    if x == 0 and y == 0:
        return rle
    # Segments have no negative coordinates: shift into the middle of a grid of 3 x 3 images, crop, and shift back.
    x, y = int(np.clip(x, -width, width)), int(np.clip(y, -height, height))
    shifted = Segments.from_rle(rle).shift(width + x, height + y).crop((width, height, width, height))
    return shifted.shift(-width, -height).to_rle((height, width))


def _to_detections(found: Instances) -> list[_Detection]:
    boxes = found.pred_boxes.tensor.double().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    rles = found.pred_masks.rles if found.has("pred_masks") else [None] * len(found)
    columns = zip(range(len(found)), found.pred_classes.tolist(), boxes, rles, strict=True)
    return [_Detection(*row) for row in columns]


def _centre(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return box[:2] + box[2:] / 2
