"""What the rules know: the fingerprints of the data, the machine, and what the user said."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn_ext.config.plan.machine import Machine
from maskrcnn_ext.data.fingerprint import Fingerprint, ObjectFigures


@dataclass(frozen=True)
class Situation:
    """What a plan depends on.

    Attributes:
        train: the data to train on.
        val: the data to validate on.
        machine: the machine to train on.
        any_orientation: whether objects are seen in any orientation, as from above or through a microscope.
    """

    train: Fingerprint
    val: Fingerprint
    machine: Machine
    any_orientation: bool = False

    @property
    def objects(self) -> ObjectFigures:
        """The objects to train on."""
        return self.train.objects

    @property
    def has_masks(self) -> bool:
        """Whether masks are predicted: most objects have outlines."""
        return self.objects.outlined >= 0.5

    @property
    def has_keypoints(self) -> bool:
        """Whether keypoints are predicted."""
        return bool(self.objects.keypoints)

    @property
    def most_objects(self) -> int:
        """Largest number of objects in an image."""
        return max(self.objects.most, self.val.objects.most)
