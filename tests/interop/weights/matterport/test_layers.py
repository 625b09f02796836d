"""The conversion of each kind of layer of Keras's Mask R-CNN."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from maskrcnn_ext.interop.weights.matterport import layers


class Recorder:
    """Applies `put` to tensors, as a Conversion does."""

    def __init__(self, tensors):
        self.tensors, self.state, self.keys = tensors, {}, set()

    def put(self, name, *keys, make=None):
        self.keys.update(keys)
        if all(key in self.tensors for key in keys):
            tensors = [self.tensors[key] for key in keys]
            self.state[name] = make(*tensors) if make else tensors[0]


def test_all_layers_with_weights_are_mapped():
    for backbone in layers.BLOCKS:
        recorder = Recorder({})
        layers.map_layers(recorder, backbone)
        assert {key.partition("/")[0] for key in recorder.keys} == layers.layer_names(backbone)


def test_a_folded_norm_computes_the_same():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(*shape, generator=generator) + 0.1

    layer, norm = "mrcnn_mask_conv1", "mrcnn_mask_bn1"
    tensors = {f"{layer}/kernel": random(3, 3, 2, 4), f"{layer}/bias": random(4)}
    tensors |= {f"{norm}/{part}": random(4) for part in ("gamma", "beta", "moving_mean", "moving_variance")}
    recorder = Recorder(tensors)
    layers.map_layers(recorder, "resnet50")
    image = random(1, 2, 8, 8)
    convolved = F.conv2d(image, tensors[f"{layer}/kernel"].permute(3, 2, 0, 1), tensors[f"{layer}/bias"])
    gamma, beta, mean, variance = (
        tensors[f"{norm}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    expected = F.batch_norm(convolved, mean, variance, gamma, beta, eps=1e-3)
    name = "roi_heads.mask_head.mask_fcn1"
    found = F.conv2d(image, recorder.state[f"{name}.weight"], recorder.state[f"{name}.bias"])
    torch.testing.assert_close(found, expected)


def test_objectness_is_the_probability_of_the_softmax():
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0))  # three anchors, background and object each
    recorder = Recorder({"rpn_class_raw/bias": logits})
    layers.map_layers(recorder, "resnet50")
    found = recorder.state["proposal_generator.rpn_head.objectness_logits.bias"].sigmoid()
    torch.testing.assert_close(found, logits.view(3, 2).softmax(dim=1)[:, 1])


def test_deltas_and_classes_are_reordered():
    recorder = Recorder({"mrcnn_bbox_fc/bias": torch.arange(8.0), "mrcnn_class_logits/bias": torch.arange(3.0)})
    layers.map_layers(recorder, "resnet50")
    # Of background and one class, (dy, dx, dh, dw) of the class.
    assert recorder.state["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [5, 4, 7, 6]
    assert recorder.state["roi_heads.box_predictor.cls_score.bias"].tolist() == [1, 2, 0]
