"""Targets are imported, and their arguments checked, without calling them."""

import inspect

import pytest
import torch

from maskrcnn_ext import InputError
from maskrcnn_ext.config.callables import (
    accepted_arguments,
    find_target,
    iter_nodes,
    missing_arguments,
    named_arguments,
    node_faults,
    target_name,
    unknown_arguments,
)


class Base:
    def __init__(self, width, *, norm=None):
        pass


class PassesOn(Base):
    def __init__(self, depth, **kwargs):  # noqa: ARG002
        super().__init__(**kwargs)


def test_a_target_is_a_path_or_a_callable():
    assert find_target("torch.nn.Conv2d", "model") is torch.nn.Conv2d
    assert find_target(Base, "model") is Base


@pytest.mark.parametrize("target", ["${..head}", {"_target_": "torch.nn.Conv2d"}])
def test_a_target_that_is_known_only_later_is_none(target):
    assert find_target(target, "model") is None
    assert accepted_arguments(None) is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.nn.Conv2", r"model\._target_=torch\.nn\.Conv2 cannot be imported: did you mean torch\.nn\.Conv2d"),
        ("Conv2d", "write its module too"),
        ("no_such_package.Head", r"cannot be imported \(.*no_such_package"),
        ("torch.__version__", "expected a class or a function"),
        (3, "is a int, expected a class"),
    ],
)
def test_a_wrong_target_is_one_line(target, message):
    with pytest.raises(InputError, match=message) as caught:
        find_target(target, "model")
    assert "\n" not in str(caught.value)


def test_keyword_arguments_of_base_classes_are_known_but_not_exclusive():
    assert accepted_arguments(PassesOn) is None
    assert set(named_arguments(PassesOn)) == {"depth", "width", "norm"}
    assert list(accepted_arguments(Base)) == ["width", "norm"]


def test_nodes_are_found_in_mappings_and_lists_outermost_first():
    tree = {"a": {"_target_": "x", "b": [1, {"_target_": "y"}]}, "c": {"d": 1}, "e": [{"f": {"_target_": "z"}}]}
    assert [(key, node["_target_"]) for key, node in iter_nodes(tree)] == [("a", "x"), ("a.b.1", "y"), ("e.0.f", "z")]
    assert list(iter_nodes(3)) == list(iter_nodes({})) == []


def test_unknown_and_missing_arguments_are_lines():
    node = {"_target_": Base, "wdth": 3}
    assert unknown_arguments("m", node, Base) == ["m: Base takes no wdth: did you mean width?; ~m.wdth removes it"]
    assert missing_arguments("m", node, Base) == ["m: Base needs width: set m.width"]
    assert len(node_faults("m", node)) == 2
    assert node_faults("m", {"_target_": Base, "width": 3}) == []
    assert unknown_arguments("m", {"_target_": PassesOn, "anything": 1}, PassesOn) == []


def test_settings_of_the_training_script_are_not_missing():
    def build(params, model):
        return params, model

    assert missing_arguments("optimizer.params", {"params": 1}, build) == []
    assert missing_arguments("model.params", {"params": 1}, build) != []


def test_names_of_targets():
    assert [target_name(target) for target in ("a.B", Base, 3)] == ["a.B", "Base", "3"]
    assert isinstance(named_arguments(Base)["norm"], inspect.Parameter)
