"""DCTMaskHead decodes its vectors."""

import cv2
import numpy as np
import torch

from maskrcnn_ext.ops.dct import DCTCodec
from tests.helpers.mask_heads import build


def test_dct_head_decodes_its_vector():
    head = build("DCTMaskHead").eval()
    disc = cv2.circle(np.zeros((128, 128), np.float32), (64, 60), 40, 1, -1)
    vector = DCTCodec(128, 300).encode(torch.as_tensor(disc))[None]
    mask = head.probs(vector, torch.zeros(1, dtype=torch.int64))[0, 0] > 0.5
    assert (mask.numpy() == (disc > 0)).mean() > 0.99
