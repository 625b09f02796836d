"""Every mask head, pooler and architecture in every target: the table of docs/export.md is what happens."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export import TARGETS, export
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import OpenCvRuntime, open_model
from maskrcnn_ext.interop.export.standalone.paste import keypoints
from maskrcnn_ext.interop.export.verify import Limits, Reference, verify
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS
from tests.conftest import ROOT
from tests.helpers.calibration import images, matched
from tests.helpers.exporting import CLASSES, NUM_CLASSES, build, tensor
from tests.helpers.imported_models import from_matterport, from_torchvision

DOCUMENTATION = ROOT / "docs/export.md"
FIVE_CLASSES = f"model.roi_heads.num_classes={NUM_CLASSES}"
LIVE = ["model.backbone.freeze_at=0", "model.backbone.stem.norm=BN", "model.backbone.stages.norm=BN"]
SIZE = [
    "dataloader.test.mapper.augmentations.0.short_edge_length=160",
    "dataloader.test.mapper.augmentations.0.max_size=256",
]
SMALL = "mask_rcnn_r18_fpn_scratch"
# Row of the table -> config and overrides.
ARCHITECTURES = {
    "FPN": (SMALL, [FIVE_CLASSES]),
    "FPN, GroupNorm": (SMALL, [FIVE_CLASSES, "model.backbone.norm=GN", "model.roi_heads.mask_head.conv_norm=GN"]),
    "C4": ("mask_rcnn_r50_c4_1x", [FIVE_CLASSES, *LIVE, "model.roi_heads.res5.norm=GN"]),
    "DC5": ("mask_rcnn_r50_dc5_1x", [FIVE_CLASSES, *LIVE]),
    "Cascade": ("cascade_mask_rcnn_r18_fpn_scratch", [FIVE_CLASSES]),
    "boxes alone (Faster R-CNN)": ("faster_rcnn_r18_fpn_scratch", [FIVE_CLASSES]),
    "keypoints": ("keypoint_rcnn_r18_fpn_scratch", []),
    "masks and keypoints": ("mask_keypoint_rcnn_r18_fpn_scratch", []),
}


def of_part(part):
    overrides = [FIVE_CLASSES, *part.override().split()]
    if part.takes_channels:
        overrides.append(f"model.roi_heads.{part.node}.channels=128")
    if part.name.startswith("Implicit"):  # its last layer would have a hundred million weights
        overrides += ["model.roi_heads.mask_head.fc_dim=64", "model.roi_heads.mask_head.point_fc_dim=32"]
    return SMALL, overrides


CONFIGS = {**ARCHITECTURES, **{part.name: of_part(part) for part in [*MASK_HEADS, *POOLERS]}}
# Row of the table -> how the model of another framework is made in a folder.
IMPORTED = {
    "torchvision, `maskrcnn_resnet50_fpn`": partial(from_torchvision, "maskrcnn_resnet50_fpn"),
    "torchvision, `maskrcnn_resnet50_fpn_v2`": partial(from_torchvision, "maskrcnn_resnet50_fpn_v2"),
    "torchvision, `keypointrcnn_resnet50_fpn`": partial(from_torchvision, "keypointrcnn_resnet50_fpn"),
    "Matterport": partial(from_matterport, images()[0]),
}
ROWS = [*CONFIGS, *IMPORTED]
FILES = {"onnx": "a.onnx", "openvino": "a.xml", "torchscript": "a.ts", "torch-export": "a.pt2", "opencv": "a"}


def table():
    """The rows of the documentation: name -> target -> whether it works."""
    lines = [line for line in DOCUMENTATION.read_text().splitlines() if line.startswith("| ")]
    header = next(line for line in lines if all(f"`{target}`" in line for target in TARGETS))
    targets = [cell.strip(" `") for cell in header.strip("|").split("|")][1:]
    found = {}
    for line in lines:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        name = name if name in IMPORTED else name.strip("`")
        if name in ROWS and len(cells) == len(targets):
            found[name] = dict(zip(targets, (cell == "yes" for cell in cells), strict=True))
    return found


def test_the_table_is_complete():
    assert table().keys() == set(ROWS)
    assert all(row.keys() == TARGETS.keys() for row in table().values())


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ROWS)
def test_the_table_of_the_documents(name, target, tmp_path):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}.get(target, "cv2"))
    model, mapper = IMPORTED[name](tmp_path) if name in IMPORTED else build(*CONFIGS[name], SIZE)
    recipe = build_recipe(model, mapper, CLASSES)
    if not table()[name][target]:
        with pytest.raises(InputError):
            export(model, recipe, target, tmp_path / FILES[target])
        return
    runtime = open_model(export(model, recipe, target, tmp_path / FILES[target]))
    if isinstance(runtime, OpenCvRuntime):  # whose masks are pasted already
        named = [("a", images()[0])]
        (result,) = verify(runtime, Reference(model, mapper), recipe, named, Limits(mask_iou=0.95))
        assert result.faults == []
        return
    # Of a small image, Matterport's has boxes of one pixel at the border, several alike.
    for image in [images()[0], np.flip(images()[0])] if name == "Matterport" else images():
        if target == "torch-export" and min(image.shape[:2]) <= 64:
            continue
        with torch.no_grad():
            (expected,) = model.inference([{"image": tensor(image)}], do_postprocess=False)
        assert len(expected) > 20
        found = {key: torch.from_numpy(value) for key, value in runtime._run(tensor(image).numpy()).items()}
        order, distance = matched(found["boxes"], found["classes"], expected.pred_boxes.tensor, expected.pred_classes)
        assert distance < 0.05  # random weights of 50 layers enlarge what rounding leaves
        torch.testing.assert_close(found["scores"][order], expected.scores, rtol=0, atol=1e-3)
        if expected.has("pred_masks"):
            difference = (found["masks"][order] - expected.pred_masks[:, 0]).abs()
            # PointRend and PatchDCT choose: a few samples on the edge of two choices may be others.
            assert (difference > 0.01).float().mean() < 1e-3
        if expected.has("pred_keypoints"):
            points = keypoints(found["keypoint_heatmaps"][order].numpy(), found["boxes"][order].numpy())
            distance = np.abs(points[:, :, :2] - expected.pred_keypoints[:, :, :2].numpy()).max(axis=2)
            assert (distance > 1).mean() < 0.01  # a random heatmap may have two peaks of the same height
        if expected.has("pred_mask_scores"):
            torch.testing.assert_close(found["mask_scores"][order], expected.pred_mask_scores, rtol=0, atol=1e-3)
