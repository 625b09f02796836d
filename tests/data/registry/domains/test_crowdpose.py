"""CrowdPose: its keypoints, links and sigmas."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from pycocotools.cocoeval import Params

from maskrcnn_ext import get_config
from maskrcnn_ext.data.registry.domains.crowdpose import KEYPOINTS, LINKS, SIGMAS
from tests.conftest import COCO_KEYPOINTS
from tests.helpers.domain_files import H, W, write_domain


def test_crowdpose_is_measured_with_its_own_sigmas(root, tmp_path):
    """The annotations' own keypoints as predictions are all correct; moved by a fifth of the box, none is."""
    write_domain("crowdpose", root)
    cfg = get_config("domains/crowdpose.py")
    cfg.train.output_dir = str(tmp_path / "out")
    records = instantiate(cfg.dataloader.test.dataset)
    for shift, expected in ((0, 100), (8, 0)):
        evaluator = instantiate(cfg.dataloader.evaluator)
        evaluator.reset()
        for record in records:
            found = Instances((H, W))
            found.pred_boxes = Boxes(torch.tensor([a["bbox"] for a in record["annotations"]]))
            found.scores = torch.ones(len(found))
            found.pred_classes = torch.zeros(len(found), dtype=torch.int64)
            points = torch.tensor([a["keypoints"] for a in record["annotations"]]).reshape(-1, 14, 3)
            found.pred_keypoints = points + torch.tensor([shift, shift, 0])
            evaluator.process([record], [{"instances": found}])
        assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(expected)


def test_joints_have_the_sigmas_of_coco():
    coco_sigmas = dict(zip(COCO_KEYPOINTS, Params("keypoints").kpt_oks_sigmas, strict=True))
    sigmas = dict(zip(KEYPOINTS, SIGMAS, strict=True))
    joints = set(KEYPOINTS) - {"head", "neck"}
    assert len(joints) == 12
    assert {name: sigmas[name] for name in joints} == pytest.approx({name: coco_sigmas[name] for name in joints})


def test_links_are_symmetric_and_reach_every_keypoint():
    def mirror(name):
        side, _, part = name.partition("_")
        return name.replace(side, {"left": "right", "right": "left"}[side]) if part else name

    links = {frozenset(link) for link in LINKS}
    assert links == {frozenset(mirror(name) for name in link) for link in LINKS}
    assert set().union(*links) == set(KEYPOINTS)
