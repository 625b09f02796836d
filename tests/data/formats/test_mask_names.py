"""Names of folders and files are divided into words as people write them."""

import pytest

from maskrcnn_ext.data.formats.mask_names import names_images, names_masks, without_kind


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("PNGImages", "png"),
        ("PedMasks", "ped"),
        ("trainMasks2017", "train 2017"),
        ("TRAIN_MASKS", "train"),
        ("GroundTruth", ""),
        ("groundtruth", ""),
        ("IMG_0012", "0012"),
        ("Imagery", "imagery"),
    ],
)
def test_words_are_apart_at_capitals_numbers_and_signs(name, rest):
    assert without_kind(name) == rest


def test_kinds_are_whole_words():
    assert names_images("RawImages")
    assert not names_images("imagery")
    assert names_masks("PedMasks")
    assert not names_masks("Unmasked")
