"""``tf.image.crop_and_resize``, which Keras's Mask R-CNN calls RoIAlign."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_ext.ops.taps import bilinear_taps, sum_taps


def _sample_positions(start: Tensor, end: Tensor, samples: int) -> Tensor:
    """Returns positions (M, samples) from ``start`` to ``end`` (M,), both included; a single sample is halfway."""
    if samples == 1:
        return ((start + end) / 2)[:, None]
    # lerp is exact at both ends: a sample at the end of the map must not be rounded out of it.
    steps = torch.linspace(0, 1, samples, dtype=start.dtype, device=start.device)
    return torch.lerp(start[:, None], end[:, None], steps)


def crop_and_resize(features: Tensor, boxes: Tensor, images: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Returns boxes resampled with one bilinear sample a bin and corners aligned; outside the map is 0.

    Sample i of h is at ``y1 * (H - 1) + i * (y2 - y1) * (H - 1) / (h - 1)``, in the middle of the box for h = 1. A box may be
    upside down. It computes in float32 or float64. Features receive gradients, boxes do not.

    Args:
        features: (N, C, H, W), floating point. N: images, C: channels.
        boxes: (M, 4): y1, x1, y2, x2, normalised so that 0 and 1 are the centres of the outermost pixels. M: boxes of all images.
        images: (M,) int64, the image of each box.
        output_size: samples along the height and the width, (h, w).

    Returns:
        (M, C, h, w), of the features' dtype.
    """
    channels, height, width = features.shape[1:]
    samples_y, samples_x = output_size
    y1, x1, y2, x2 = boxes.detach().to(torch.promote_types(features.dtype, torch.float32)).unbind(1)
    y = _sample_positions(y1 * (height - 1), y2 * (height - 1), samples_y)
    x = _sample_positions(x1 * (width - 1), x2 * (width - 1), samples_x)
    y, x, images = torch.broadcast_tensors(y[:, :, None], x[:, None, :], images[:, None, None])
    rows, weights = bilinear_taps(images.flatten(), y.flatten(), x.flatten(), height=height, width=width, margin=0)
    starts = torch.arange(0, rows.numel(), rows.shape[1], device=rows.device)
    pooled = sum_taps(features, rows.flatten(), weights.flatten(), starts)
    return pooled.view(-1, samples_y, samples_x, channels).permute(0, 3, 1, 2)
