"""Any data gets a plan or one clear line, and the same data and machine the same plan."""

import pytest

from maskrcnn_ext.config.plan import Machine, plan
from maskrcnn_ext.config.plan.machine import LITE
from maskrcnn_ext.errors import InputError
from tests.helpers.labelled_images import make_fingerprint

TOPICS = ["data", "model", "pixels", "input", "anchors", "detections", "masks", "augmentation", "batch", "schedule"]
CPU = Machine(weights=(LITE,))


def test_ten_lines_with_a_reason_each():
    found = plan(make_fingerprint(), CPU, val=make_fingerprint(name="other"))
    assert [choice.topic for choice in found.choices] == TOPICS
    assert all(choice.value and choice.reason for choice in found.choices)
    assert len(found.table().splitlines()) == 10
    assert found.summary == "100 images with 500 objects of 1 class"
    assert found.value("dataloader.test.dataset.names") == "other"
    assert found.warnings == ()


def test_the_same_plan_again():
    assert plan(make_fingerprint((9, 70)), CPU) == plan(make_fingerprint((9, 70)), CPU)


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        ({"objects": {"outlined": 0.0}}, "the objects have no outlines: a model for boxes is trained"),
        ({"objects": {"outlined": 0.05}}, "only 5% of the objects have outlines: a model for boxes is trained"),
        ({"images": {"dtype": "uint16 and uint8"}}, "images of uint16 and uint8, whose values are not of one scale"),
        ({"objects": {"keypoints": ("a", "b")}}, "no flip pairs"),
        ({"num_images": 1, "per_image": 1}, "validation uses the training images"),
        ({"classes": ("a", "b", "c"), "counts": (498, 1, 0)}, "one object of b"),
        ({"classes": ("a", "b"), "counts": (500, 0)}, "no object of b"),
        ({"images": {"unreadable": ("a.png: no such file",)}}, "1 image cannot be used: a.png"),
        ({"classes": tuple(map(str, range(1000))), "num_images": 2000}, None),
        ({"size": (20_000, 20_000), "num_images": 2, "per_image": 2000}, "data@tiles:1024 to cut"),
        ({"images": {"dtype": "uint16", "channels": 1, "image_format": "raw"}}, None),
        ({"images": {"channels": 5, "image_format": "raw", "mean": (1.0,) * 5, "std": (1.0,) * 5}}, None),
        ({"sides": (0.5,)}, None),
        ({"sides": (4000,), "size": (6000, 4000)}, None),
        ({"size": (32, 32), "sides": (6,)}, None),
    ],
)
@pytest.mark.parametrize("machine", [CPU, Machine(), Machine(cores=16, gpu_memory=2**34)])
def test_any_data_gets_a_plan(data, warning, machine):
    found = plan(make_fingerprint(**data), machine)
    assert len(found.choices) == 10
    assert warning is None or any(warning in line for line in found.warnings)
    assert all("nan" not in text for text in found.overrides())


def test_what_cannot_be_trained_is_one_line():
    with pytest.raises(InputError, match="no object to train on in 100 images"):
        plan(make_fingerprint(per_image=0, counts=(0,)), CPU)
    with pytest.raises(InputError, match=r"`\$\{` in a path is a reference .* rename the folder"):
        plan(make_fingerprint(), CPU, val=make_fingerprint(name="coco:/a/${b}/c.json@/a"))
    with pytest.raises(InputError, match="has the classes cat, data has cell: no class is the same"):
        plan(make_fingerprint(), CPU, val=make_fingerprint(classes=("cat",), name="val"))


def test_nothing_to_validate_on_is_said_aloud():
    found = plan(make_fingerprint(), CPU, val=make_fingerprint(per_image=0, counts=(0,), name="other"))
    assert any("other: no object to validate on, so no AP is measured" in line for line in found.warnings)
    assert "no object to validate on" in found.choice("schedule").value


def test_images_without_objects_do_not_count():
    with_empty = make_fingerprint(num_images=60, objects={"per_image": (5,) * 20 + (0,) * 40})
    found = plan(with_empty, CPU, val=with_empty)
    assert found.choice("data").value == "20 images to train on, 60 to validate on"
    assert "40 without objects left out" in found.choice("data").reason
    alone = plan(make_fingerprint(num_images=20), CPU, val=with_empty)
    assert found.value("train.max_iter") == alone.value("train.max_iter")
    assert found.choice("schedule").value == alone.choice("schedule").value


def test_random_weights_are_said_aloud():
    assert any("random weights: pip install" in line for line in plan(make_fingerprint(), Machine()).warnings)
