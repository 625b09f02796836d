"""Flips follow what the user says, mixing and sampling follow the numbers of objects."""

from maskrcnn_ext.config.plan.machine import Machine
from maskrcnn_ext.config.plan.rules.augmentation import choose_augmentation
from maskrcnn_ext.config.plan.rules.canvas import choose_canvas
from maskrcnn_ext.config.plan.situation import Situation
from tests.helpers.labelled_images import make_fingerprint


def augmentation_of(*, any_orientation=False, gpu=0, **data):
    found = make_fingerprint(**data)
    situation = Situation(found, found, Machine(gpu_memory=gpu), any_orientation)
    return choose_augmentation(situation, choose_canvas(situation)[0], 1000)


def flips(choice):
    calls = choice.settings["dataloader.train.mapper.augmentations"]
    return [call.arguments for call in calls if call.target.endswith("RandomFlip")]


def test_flips():
    assert len(flips(augmentation_of())) == 1
    assert flips(augmentation_of(any_orientation=True))[1] == {"horizontal": False, "vertical": True}
    unnamed = augmentation_of(objects={"keypoints": ("a", "b")})
    assert flips(unnamed) == []
    assert "no keypoint is named left or right" in unnamed.reason
    assert len(flips(augmentation_of(objects={"keypoints": ("left_ear", "right_ear")}))) == 1


def test_few_objects_are_pasted_until_the_last_tenth():
    settings = augmentation_of(num_images=10, per_image=5).settings
    assert settings["dataloader.train._target_"].path == "maskrcnn_ext.build_train_loader"
    assert settings["dataloader.train.mixed_samples"] == 900
    assert settings["dataloader.train.mapper.instance_mask_format"] == "bitmask"
    assert "copy-paste" in augmentation_of(num_images=10, per_image=5, objects={"outlined": 0.9}).value
    for many in ({}, {"num_images": 10, "objects": {"outlined": 0.8}}, {"num_images": 1, "per_image": 3}):
        assert "dataloader.train.mixed_samples" not in augmentation_of(**many).settings


def test_mosaics_halve_objects_that_are_large_enough():
    large = augmentation_of(num_images=10, per_image=5, sides=(60,), gpu=2**34)
    assert large.settings["dataloader.train.mosaic"] == {"probability": 0.3}
    assert "copy-paste and mosaic until 90%" in large.value
    assert "dataloader.train.mosaic" not in augmentation_of(num_images=10, per_image=5, sides=(30,), gpu=2**34).settings
    assert "dataloader.train.mosaic" not in augmentation_of(sides=(60,), gpu=2**34).settings
    assert "dataloader.train.mosaic" not in augmentation_of(num_images=10, per_image=5, sides=(60,)).settings, "a CPU"


def test_rare_classes_are_drawn_more_often():
    rare = augmentation_of(classes=("a", "b"), counts=(480, 5))
    assert rare.settings["dataloader.train.sampler"].target == "maskrcnn_ext.repeat_factor_sampler"
    assert "5 to 100 of 100 images" in rare.reason
    assert "dataloader.train.sampler" not in augmentation_of(classes=("a", "b"), counts=(300, 200)).settings
