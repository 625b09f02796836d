"""Choices print as overrides that are read back as the same values."""

import shlex

import pytest

from maskrcnn_ext.config.overrides import parse_override
from maskrcnn_ext.config.plan.choice import Call, Choice, Plan, Target, override_value


@pytest.mark.parametrize(
    "value",
    [
        *(1, 0.0005, True, None, "plain", "a b", "coco:/a/b c.json@/d,e", "it's", "${..dataset}", "key=value", "[x]"),
        *([1, [2, 3]], [], {"probability": 0.5, "level": "instance"}, "segm/AP", "a\\b", "ä/ö.json", "{a}"),
    ],
)
def test_values_survive_as_overrides(value):
    assert parse_override(f"train.key={override_value(value)}").value == value


def test_values_need_one_kind_of_quotes_in_a_shell():
    name = "labelme:/a@list:/b.txt"
    assert shlex.quote(f"key={override_value(name)}") == f"'key=\"{name}\"'"


def test_calls_and_targets():
    call = Call("detectron2.data.transforms.RandomCrop", {"crop_type": "absolute", "crop_size": [256, 256]})
    found = parse_override(f"key={override_value([call])}").value
    assert found == [
        {"_target_": "detectron2.data.transforms.RandomCrop", "crop_type": "absolute", "crop_size": [256, 256]}
    ]
    assert override_value(Target("maskrcnn_ext.FastRPN")) == "maskrcnn_ext.FastRPN"


def test_a_plan_lists_its_choices():
    choices = (Choice("a", "one", "because", {"train.max_iter": 3}), Choice("b", "left", "fits"))
    plan = Plan("base.py", "train", "val", "two images", choices)
    assert plan.overrides() == ["train.max_iter=3"]
    assert plan.value("train.max_iter") == 3
    assert plan.value("optimizer.lr") is None
    assert plan.choice("b").value == "left"
    assert plan.table().splitlines()[0].split() == ["a", "one", "because"]


def test_a_plan_fits_a_narrow_terminal():
    choices = (Choice("input", "whole images " * 4, "objects of 3 to 9 pixels " * 4), Choice("b", "left", "fits"))
    plan = Plan("base.py", "train", "val", "two images", choices)
    assert plan.table(300) == plan.table()
    narrow = plan.table(60)
    assert max(map(len, narrow.splitlines())) <= 60
    assert narrow.split().count("pixels") == plan.table().split().count("pixels") == 4
