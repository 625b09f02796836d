"""The account of every key of a source and every tensor of the model."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.torchvision import convert as source
from tests.helpers.torchvision_models import (
    saved,
    small_model,  # noqa: F401 (fixtures)
)


def test_every_key_is_accounted_for(small_model, tmp_path):
    converted = source.convert(saved(small_model, tmp_path))
    report = converted.report
    assert report.used.keys() | report.unused.keys() == small_model.state_dict().keys()
    assert not report.used.keys() & report.unused.keys()
    assert {key.rpartition(".")[2] for key in report.unused} == {"num_batches_tracked"}
    assert report.used["roi_heads.box_head.fc6.weight"] == ["roi_heads.box_head.fc1.weight"]
    assert len(report.lines()) < 5
    assert any(
        line.endswith("backbone.body.conv1.weight -> backbone.bottom_up.stem.conv1.weight")
        for line in report.lines(True)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update(extra=torch.zeros(1)), "extra is not used"),
        (
            lambda state: state.pop("backbone.body.layer2.0.bn1.weight"),
            r"no key for the model's .*res3\.0\.conv1\.norm\.weight",
        ),
        (lambda state: state.pop("roi_heads.box_predictor.bbox_pred.bias"), r"bbox_pred\.bias is missing"),
        (
            lambda state: state.update({"rpn.head.cls_logits.bias": torch.zeros(5)}),
            r"objectness_logits\.bias has shape \(5,\), the model's has \(3,\)",
        ),
        (
            lambda state: state.update({"rpn.head.conv.bias": torch.zeros(256)}),
            r"another key both map to the model's .*rpn_head\.conv\.bias",
        ),
        (
            lambda state: state.update({"roi_heads.box_predictor.bbox_pred.bias": torch.zeros(())}),
            r"bbox_pred\.bias cannot become roi_heads\.box_predictor\.bbox_pred\.bias",
        ),
        (lambda state: state.pop("roi_heads.box_predictor.cls_score.weight"), r"cls_score\.weight is missing"),
        (
            lambda state: state.update({"roi_heads.box_predictor.cls_score.weight": torch.zeros(6)}),
            r"cls_score\.weight has shape \(6,\), expected a tensor of 2 dimensions",
        ),
        (lambda state: state.pop("rpn.head.cls_logits.weight"), "not a detector of torchvision"),
    ],
)
def test_unexplained_keys_are_an_error(small_model, tmp_path, change, message):
    state = small_model.state_dict()
    change(state)
    torch.save(state, tmp_path / "source.pth")
    with pytest.raises(InputError, match=message) as caught:
        source.convert(tmp_path / "source.pth")
    assert "\n" not in str(caught.value)
