"""InflatedStem: the features of the three-channel network, for every way of loading weights, and the trained parameters."""

import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import ResNet
from detectron2.modeling.backbone import BasicStem

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.modeling.inflate import InflatedStem


def resnet(stem, freeze_at=0):
    stages = ResNet.make_default_stages(depth=18, norm="BN")
    return ResNet(stem, stages, out_features=["res2", "res5"], freeze_at=freeze_at)


@pytest.fixture
def three():
    torch.manual_seed(0)
    return resnet(BasicStem(norm="BN")).eval()


@pytest.mark.parametrize("form", ["pth", "pkl"])
@pytest.mark.parametrize(
    ("channels", "order"), [(5, (0, 1, 2)), (5, (4, 0, 2)), (3, (0, 1, 2)), (1, (0, 0, 0)), (2, (0, 1, 1))]
)
def test_a_three_channel_checkpoint_keeps_its_features(tmp_path, three, channels, order, form):
    if form == "pth":
        DetectionCheckpointer(three, str(tmp_path)).save("three")
    else:  # as Detectron2's model zoo, whose names are matched by their ends
        weights = {name: value.numpy() for name, value in three.state_dict().items()}
        (tmp_path / "three.pkl").write_bytes(
            pickle.dumps({"model": weights, "__author__": "test", "matching_heuristics": True})
        )
    network = resnet(InflatedStem(channels, norm="BN", pretrained_channels=order)).eval()
    DetectionCheckpointer(network).load(str(tmp_path / f"three.{form}"))
    image = torch.randn(2, channels, 64, 96)
    expected, found = three(image[:, list(order)]), network(image)
    for name, feature in expected.items():
        torch.testing.assert_close(found[name], feature, atol=1e-5, rtol=1e-5)


def test_the_stock_stem_starts_from_random_weights_instead(tmp_path, three):
    DetectionCheckpointer(three, str(tmp_path)).save("three")
    network = resnet(BasicStem(5, norm="BN")).eval()
    DetectionCheckpointer(network).load(str(tmp_path / "three.pth"))
    image = torch.randn(1, 5, 64, 96)
    assert not torch.allclose(network(image)["res2"], three(image[:, :3])["res2"], atol=1e-2)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", ""])
def test_a_frozen_stem_still_learns_its_extra_channels(norm):
    torch.manual_seed(0)
    network = resnet(InflatedStem(5, norm=norm), freeze_at=2).train()
    stem = network.stem
    assert [name for name, value in stem.named_parameters() if value.requires_grad] == ["extra_weight"]
    image = torch.randn(2, 5, 64, 64)
    network(image)["res5"].square().mean().backward()
    assert stem.extra_weight.grad.abs().sum() > 0
    assert stem.conv1.weight.grad is None
    with torch.no_grad():
        before = stem(image)
        stem.extra_weight += 0.1
        assert not torch.allclose(stem(image), before)


def test_a_saved_inflated_checkpoint_loads(tmp_path):
    network = resnet(InflatedStem(4)).eval()
    torch.nn.init.normal_(network.stem.extra_weight)
    DetectionCheckpointer(network, str(tmp_path)).save("four")
    again = resnet(InflatedStem(4)).eval()
    DetectionCheckpointer(again).load(str(tmp_path / "four.pth"))
    image = torch.randn(1, 4, 64, 64)
    torch.testing.assert_close(again(image)["res5"], network(image)["res5"])


def test_missing_channels_raise_an_error():
    for channels, order in ((1, (0, 1, 2)), (3, (0, 1, 3)), (3, (-1, 0, 1)), (3, ())):
        with pytest.raises(InputError, match=r"pretrained_channels=\[.*write \[0,0,0\] for a grey image"):
            InflatedStem(channels, pretrained_channels=order)


def test_a_config_takes_it_by_overrides_and_trains_and_infers():
    from detectron2.structures import Boxes, Instances, PolygonMasks
    from detectron2.utils.events import EventStorage

    stem = "model.backbone.bottom_up.stem"
    overrides = [
        f"{stem}._target_=maskrcnn_ext.modeling.inflate.InflatedStem",
        f"{stem}.in_channels=5",
        "model.pixel_mean=[1,2,3,4,5]",
        "model.pixel_std=[1,1,1,1,1]",
    ]
    model = instantiate(LazyConfig.apply_overrides(get_config("mask_rcnn_r18_fpn_scratch.py"), overrides).model)
    image = {"image": torch.rand(5, 64, 96) * 1000, "height": 64, "width": 96}
    instances = Instances((64, 96), gt_boxes=Boxes([[10, 10, 40, 40]]), gt_classes=torch.tensor([1]))
    instances.gt_masks = PolygonMasks([[torch.tensor([10, 10, 40, 10, 40, 40.0])]])
    with EventStorage():
        losses = model([{**image, "instances": instances}])
    sum(losses.values()).backward()
    assert model.backbone.bottom_up.stem.extra_weight.grad.isfinite().all()
    (result,) = model.eval()([image])
    assert result["instances"].image_size == (64, 96)
