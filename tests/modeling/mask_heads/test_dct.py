"""DCTMaskHead decodes its vectors, and its loss measures them by the chosen distance."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from maskrcnn_ext import InputError
from maskrcnn_ext.modeling.mask_heads.ground_truth import target_masks
from maskrcnn_ext.ops.dct import DCTCodec
from tests.helpers.mask_heads import build, truth


def test_dct_head_decodes_its_vector():
    head = build("DCTMaskHead").eval()
    disc = cv2.circle(np.zeros((128, 128), np.float32), (64, 60), 40, 1, -1)
    vector = DCTCodec(128, 300).encode(torch.as_tensor(disc))[None]
    mask = head.probs(vector, torch.zeros(1, dtype=torch.int64))[0, 0] > 0.5
    assert (mask.numpy() == (disc > 0)).mean() > 0.99


@pytest.mark.parametrize(
    ("distance", "of_error"),
    [
        ("l1", abs),
        ("smooth_l1", lambda error: np.where(abs(error) < 1, error**2 / 2, abs(error) - 0.5)),
        ("l2", np.square),
    ],
)
def test_the_loss_sums_the_distances_of_a_mask(distance, of_error):
    head, instances = build("DCTMaskHead", fc_dims=[8], distance=distance), truth((2, 1))
    spectra = [cv2.dct(mask.numpy().astype(np.float64)) for mask in target_masks(instances, 128)]
    errors = np.random.default_rng(0).normal(size=(3, 300))
    vectors = np.stack([[spectrum[tuple(cell)] for cell in _cells()] for spectrum in spectra]) + errors
    with EventStorage():
        loss = head.losses(torch.as_tensor(vectors, dtype=torch.float32), instances)["loss_mask"]
    assert loss.item() == pytest.approx(0.007 * of_error(errors).sum() / 3, rel=1e-4)


def _cells():
    cells = [(row, total - row) for total in range(24) for row in range(total + 1)]
    return sorted(cells, key=lambda cell: (sum(cell), cell[1] if sum(cell) % 2 == 0 else cell[0]))


def test_an_unknown_distance():
    with pytest.raises(InputError, match=r"no distance 'huber': set .*distance to one of l1, smooth_l1, l2"):
        build("DCTMaskHead", distance="huber")
