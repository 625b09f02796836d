"""What is predicted follows the labels."""

from maskrcnn_ext.config.plan.machine import Machine
from maskrcnn_ext.config.plan.situation import Situation
from tests.helpers.labelled_images import make_fingerprint


def test_masks_keypoints_and_the_fullest_image():
    def situation(**objects):
        return Situation(make_fingerprint(objects=objects), make_fingerprint(per_image=9), Machine())

    assert situation().has_masks
    assert not situation(outlined=0.4).has_masks
    assert situation(keypoints=("nose",)).has_keypoints
    assert not situation().has_keypoints
    assert situation().most_objects == 9
