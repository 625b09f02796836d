"""PatchDCTMaskHead: the loss of the patches, and sizes that do not fit."""

import pytest
import torch

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.mask_heads.patch_dct import patch_loss
from maskrcnn_ext.ops.dct import DCTCodec, patch_kinds, to_patches
from tests.helpers.mask_heads import build


def test_patch_loss_is_zero_for_the_ground_truth_and_counts_mixed_patches_only():
    masks = torch.zeros(2, 16, 16)
    masks[0, 3:12, 5:14] = 1
    patches = to_patches(masks, 8)
    kinds, vectors = patch_kinds(patches), DCTCodec(8, 6).encode(patches)
    sure = torch.nn.functional.one_hot(kinds, 3).permute(0, 3, 1, 2) * 100.0
    assert patch_loss(sure, vectors, kinds, vectors) == 0
    other = vectors + 2.0
    assert patch_loss(sure, other, kinds, vectors).item() == pytest.approx(2)
    background = torch.zeros(1, 3, 2, 2)
    background[:, 0] = 100
    none_mixed = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert patch_loss(background, torch.ones(1, 2, 2, 6), none_mixed, torch.zeros(1, 2, 2, 6)) == 0


def test_patches_must_fill_the_mask():
    with pytest.raises(InputError, match="patches of 9 pixels do not fill a mask of 112"):
        build("PatchDCTMaskHead", patch_size=9)
