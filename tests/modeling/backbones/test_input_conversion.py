"""Pixels arrive at the network as its pre-training had them."""

import pytest
import torch

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.backbones.input_conversion import InputConversion

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STOCK = ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], "BGR")
RGB = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "RGB")


def as_model(image, mean, std, order):
    """What GeneralizedRCNN makes of a picture (3, H, W) of red, green and blue."""
    image = image.flip(0) if order == "BGR" else image
    return ((image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))[None]


@pytest.mark.parametrize(
    "declared", [STOCK, RGB, ([0.0] * 3, [255.0] * 3, "RGB"), ([9.0, 8.0, 7.0], [2.0, 3.0, 4.0], "BGR")]
)
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5,) * 3, (0.5,) * 3)])
def test_a_picture_gets_the_values_of_the_pretraining(declared, mean, std):
    image = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0)).float()
    expected = (image / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    found = InputConversion(*declared, mean=mean, std=std)(as_model(image, *declared))
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)


def test_equal_values_pass_unchanged_and_nothing_is_saved():
    conversion = InputConversion(*RGB, mean=MEAN, std=STD)
    x = torch.randn(1, 3, 2, 2)
    assert conversion.is_identity
    assert conversion(x) is x
    assert not InputConversion(*STOCK, mean=MEAN, std=STD).is_identity
    assert not conversion.state_dict()


def test_padding_stays_zero_with_the_same_mean():
    found = InputConversion(*STOCK, mean=MEAN, std=STD)(torch.zeros(1, 3, 2, 2))
    assert found.abs().max() < 1e-6


def test_other_numbers_of_channels_pass_unchanged():
    x = torch.randn(1, 5, 2, 2)
    assert InputConversion([10.0] * 5, [2.0] * 5, "RGB", mean=MEAN, std=STD)(x) is x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0] * 3, [1.0], "BGR"), "different lengths"),
        (([0.0] * 3, [1.0] * 3, "YUV-BT.601"), "set BGR or RGB"),
    ],
)
def test_wrong_declarations(arguments, message):
    with pytest.raises(InputError, match=message):
        InputConversion(*arguments, mean=MEAN, std=STD)


def test_values_that_contradict_the_declaration():
    image = torch.rand(3, 8, 8) * 255
    stock, rgb = (InputConversion(*declared, mean=MEAN, std=STD) for declared in (STOCK, RGB))
    stock.check_values(as_model(image, *STOCK))
    rgb.check_values(as_model(image, *RGB))
    stock.check_values(torch.zeros(1, 3, 8, 8))  # cannot be decided
    with pytest.raises(InputError, match=r"the model divides them.*bottom_up\.pixel_std=\[57\.375"):
        stock.check_values(as_model(image, *RGB))
    with pytest.raises(InputError, match=r"does not divide them.*bottom_up\.pixel_std=\[1\.0,1\.0,1\.0\]"):
        rgb.check_values(as_model(image, *STOCK))
