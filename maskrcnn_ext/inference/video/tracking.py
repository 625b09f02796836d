"""Objects of a video, known from frame to frame by an id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.rle import pairwise_iou
from maskrcnn_ext.ops.rle_segments import Segments

# Detections that are less sure do not even continue a track (ByteTrack's lower threshold).
_FAINT = 0.1
# Share of the newest displacement in a track's velocity.
_NEWEST = 0.5


@dataclass(frozen=True)
class _Seen:
    """One detection; `index` is its place in the frame, `box` x, y, width, height in pixels."""

    index: int
    category: int
    box: NDArray[np.float64]
    rle: dict[str, Any] | None


@dataclass
class _Track:
    """What is known of an object: where it was last seen, how fast it moves, and how many frames ago that was."""

    id: int
    last: _Seen
    velocity: NDArray[np.float64] | None = None  # (2) pixels a frame; None after one sight
    unseen: int = 0

    def expected(self) -> _Seen:
        """It in the frame that comes, if it moves on as it did."""
        if self.velocity is None:
            return self.last
        x, y = (self.velocity * (self.unseen + 1)).tolist()
        rle = None if self.last.rle is None else _moved(self.last.rle, round(x), round(y))
        return replace(self.last, box=self.last.box + np.array([x, y, 0, 0]), rle=rle)

    def see(self, seen: _Seen) -> None:
        """Takes a sight of it in the frame that `unseen` counts already."""
        moved = (_centre(seen.box) - _centre(self.last.box)) / self.unseen
        self.velocity = moved if self.velocity is None else _NEWEST * moved + (1 - _NEWEST) * self.velocity
        self.last, self.unseen = seen, 0


class Tracker:
    """Gives the objects of a video's frames ids, by overlap; a video needs a tracker of its own.

    A frame's detections are assigned to the tracks of their class so that the overlaps are largest in sum (the Hungarian method): sure
    ones first, and then faint ones, which begin no track, to what is left of the last frame's tracks (ByteTrack, arXiv:2110.06864,
    algorithm 1). The overlap is the IoU of the detection's mask with the track's last one, moved on at its velocity; of boxes where there
    are no masks. Masks stay RLEs.

    The libraries for this know boxes or dense masks. `supervision` and `trackers` hold arrays of the image's size and bring PyAV or a
    second OpenCV, `norfair` assigns greedily and `motpy` knows boxes alone; Detectron2's own is on its main branch only.
    """

    def __init__(self, *, min_score: float = 0.5, min_overlap: float = 0.2, max_unseen: int = 30) -> None:
        """Begins without tracks.

        Args:
            min_score: least score of a detection that begins a track.
            min_overlap: least overlap of a detection with its track, above 0 to 1.
            max_unseen: for how many frames a track waits to be seen again before its id is given up.
        """
        self._min_score = min_score
        self._min_overlap = min_overlap
        self._max_unseen = max_unseen
        self._tracks: list[_Track] = []
        self._count = 0
        self._size: tuple[int, int] | None = None

    def update(self, found: Instances) -> Instances:
        """Takes the next frame's detections and returns those that belong to a track, in their order, with ``track_ids`` (R) int64, from 1.

        Args:
            found: an image's prediction on the CPU: ``pred_boxes``, ``scores``, ``pred_classes``, and ``pred_masks`` as
                :class:`maskrcnn_ext.ops.rle_masks.RLEMasks` where there are masks.

        Raises:
            InputError: the frame has another size than those before.
        """
        if self._size not in (None, found.image_size):
            raise InputError(
                f"a frame of {found.image_size} (height, width) comes after frames of {self._size}: use a tracker for each video"
            )
        self._size = found.image_size
        detections, scores = _detections(found), found.scores.tolist()
        sure = [seen for seen in detections if scores[seen.index] >= self._min_score]
        faint = [seen for seen in detections if _FAINT <= scores[seen.index] < self._min_score]

        pairs = self._pairs(self._tracks, sure)
        matched = {track.id for track, _ in pairs}
        recent = [track for track in self._tracks if track.id not in matched and track.unseen == 0]
        pairs += self._pairs(recent, faint)

        for track in self._tracks:
            track.unseen += 1
        for track, seen in pairs:
            track.see(seen)
        self._tracks = [track for track in self._tracks if track.unseen <= self._max_unseen]
        ids = {seen.index: track.id for track, seen in pairs}
        for seen in sure:
            if seen.index not in ids:
                self._count += 1
                ids[seen.index] = self._count
                self._tracks.append(_Track(self._count, seen))
        kept = found[torch.tensor(sorted(ids), dtype=torch.int64)]
        kept.track_ids = torch.tensor([ids[index] for index in sorted(ids)], dtype=torch.int64)
        return kept

    def _pairs(self, tracks: Sequence[_Track], seen: Sequence[_Seen]) -> list[tuple[_Track, _Seen]]:
        """Assigns detections to tracks, each to one at most."""
        overlaps = _overlaps(tracks, seen)
        overlaps[overlaps < self._min_overlap] = 0
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        return [(tracks[t], seen[s]) for t, s in zip(rows, columns, strict=True) if overlaps[t, s] > 0]


def _overlaps(tracks: Sequence[_Track], seen: Sequence[_Seen]) -> NDArray[np.float64]:
    """(T, S) overlaps of T tracks and S detections, 0 between classes."""
    if not tracks or not seen:
        return np.zeros((len(tracks), len(seen)))
    expected = [track.expected() for track in tracks]
    overlaps = pairwise_iou(_shapes(expected), _shapes(seen))
    same = np.equal.outer([each.category for each in expected], [each.category for each in seen])
    return np.where(same, overlaps, 0)


def _shapes(objects: Sequence[_Seen]) -> list[dict[str, Any]] | NDArray[np.float64]:
    """Returns the RLEs of the objects, or their boxes if they have no masks."""
    rles = [each.rle for each in objects if each.rle is not None]
    return rles or np.stack([each.box for each in objects])


def _moved(rle: dict[str, Any], x: int, y: int) -> dict[str, Any]:
    """A mask moved within its image, as a new RLE; what leaves the image is cut off."""
    height, width = rle["size"]
    if x == 0 and y == 0:
        return rle
    # Segments have no negative coordinates, so that there is room for an image on every side.
    x, y = int(np.clip(x, -width, width)), int(np.clip(y, -height, height))
    moved = Segments.from_rle(rle).shift(width + x, height + y).crop((width, height, width, height))
    return moved.shift(-width, -height).to_rle((height, width))


def _detections(found: Instances) -> list[_Seen]:
    boxes = found.pred_boxes.tensor.double().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    rles = found.pred_masks.rles if found.has("pred_masks") else [None] * len(found)
    return [_Seen(*each) for each in zip(range(len(found)), found.pred_classes.tolist(), boxes, rles, strict=True)]


def _centre(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return box[:2] + box[2:] / 2
