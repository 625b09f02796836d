"""The last layers of RPN and mask head: equal to the layers in float64, for maps of any size and both dtypes."""

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_ext.ops import predictors
from maskrcnn_ext.ops.native import loads
from maskrcnn_ext.ops.predictors import pack_predictor, predict_pixels, select_logits

pytestmark = pytest.mark.skipif(not loads(predictors.library), reason="the compiled library is missing")
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 24, 5, 7), (1, 3, 1, 2), (3, 256, 4, 4), (0, 8, 4, 4), (1, 8, 0, 3)])
@pytest.mark.parametrize("outputs", [1, 15, 16, 45])
def test_predicting_pixels_is_a_1_x_1_convolution(shape, outputs, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last).to(dtype)
    weight, bias = torch.randn(outputs, shape[1]), torch.randn(outputs)
    found = predict_pixels(x, pack_predictor(weight, bias), outputs)
    expected = torch.einsum("nchw,oc->nohw", x.double(), weight.double()) + bias.double()[:, None, None]
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("number", "channels"), [(0, 8), (1, 5), (3, 16), (2, 40)])
def test_selected_logits_are_those_of_the_two_layers(number, channels, relu, dtype):
    torch.manual_seed(0)
    height, width = 3, 4
    products = torch.randn(number * height * width, 4 * channels).to(dtype)
    bias, weights, last = torch.randn(channels), torch.randn(number, channels), torch.randn(number)
    logits = torch.full((number, 2 * height, 2 * width), torch.nan)
    cut = len(products) // 2  # in the middle of an image
    select_logits(products[:cut], bias, weights, last, logits, relu=relu)
    select_logits(products[cut:], bias, weights, last, logits, relu=relu, first=cut)
    maps = products.double().view(number, height, width, 2, 2, channels) + bias.double()
    maps = (maps.relu() if relu else maps) @ weights.double()[:, None, None, None, :, None]
    expected = maps[..., 0].transpose(2, 3).reshape(logits.shape) + last.double()[:, None, None]
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=1e-5)


def test_nan_propagates():
    x = torch.zeros(1, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    x[0, 1, 2, 0] = torch.nan
    found = predict_pixels(x, pack_predictor(torch.ones(3, 4), torch.zeros(3)), 3)
    assert found[0, :, 2, 0].isnan().all()
    assert found.isnan().sum() == 3


def test_mismatched_arguments_raise():
    packed = pack_predictor(torch.ones(3, 4), torch.zeros(3))
    for x, message in [
        (torch.zeros(1, 5, 4, 4), "weights for 4 channels do not fit 5"),
        (torch.zeros(1, 4, 4, 4), "channels-last"),
        (torch.zeros(1, 4, 4, 4).double().to(memory_format=torch.channels_last), "float32 or bfloat16"),
    ]:
        with pytest.raises(ValueError, match=message):
            predict_pixels(x, packed, 3)
    with pytest.raises(ValueError, match="17 outputs do not fit weights for 16"):
        predict_pixels(torch.zeros(1, 4, 4, 4).to(memory_format=torch.channels_last), packed, 17)
    good = {
        "products": torch.zeros(4, 12),
        "bias": torch.zeros(3),
        "weights": torch.zeros(1, 3),
        "last": torch.zeros(1),
    }
    for change, message in [
        ({"products": torch.zeros(4, 12).double()}, "float32 or bfloat16"),
        ({"products": torch.zeros(4, 11)}, r"products \(P, 12\)"),
        ({"products": torch.zeros(5, 12)}, "are not in 1 x 2 x 2"),
        ({"weights": torch.zeros(2, 3)}, "do not fit 1 maps"),
    ]:
        with pytest.raises(ValueError, match=message):
            select_logits(**{**good, **change}, logits=torch.zeros(1, 4, 4), relu=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_the_result(dtype):
    x = F.pad(torch.randn(1, 20, 30, 31), (0, 1)).contiguous(memory_format=torch.channels_last).to(dtype)
    packed = pack_predictor(torch.randn(20, 20), torch.randn(20))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(predict_pixels(x, packed, 20))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
