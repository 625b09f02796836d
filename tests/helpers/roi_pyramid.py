"""A small feature pyramid, RoIs of all kinds, and torchvision's RoIAlign of them."""

import torch
from torchvision.ops import roi_align as torchvision_roi_align

from maskrcnn_ext.ops import roi_align_cpu

SCALES = [0.5, 0.25]
SIZES = [(2, 24, 33), (2, 12, 17)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]

# Inside, less than a pixel, beyond three edges, on the border, outside, empty, upside down, long.
ROIS = torch.tensor(
    [
        [0, 3.0, 5.0, 40.0, 41.0],
        [1, 9.3, 7.1, 10.2, 8.9],
        [1, -13.0, -9.0, 6.0, 90.0],
        [0, 60.0, 40.0, 66.0, 48.0],
        [0, 400.0, 0.0, 440.0, 20.0],
        [1, 10.0, 10.0, 10.0, 10.0],
        [0, 30.0, 40.0, 20.0, 10.0],
        [0, -300.0, 11.0, 350.0, 13.0],
    ]
)
LEVELS = torch.tensor([0, 1, 0, 0, 1, 0, 1, 0])


def is_built():
    """Returns whether the compiled RoIAlign runs here."""
    try:
        return roi_align_cpu.library() is not None
    except OSError:
        return False


def pyramid(channels=5, dtype=torch.float32, layout=torch.contiguous_format, sizes=SIZES):
    """Returns random levels (N, channels, H_l, W_l), two by default, which require gradients."""
    torch.manual_seed(0)
    levels = [torch.randn(n, channels, h, w).to(dtype) for n, h, w in sizes]
    return [level.contiguous(memory_format=layout).requires_grad_() for level in levels]


def pool_by_torchvision(features, rois, levels, output_size, sampling_ratio, aligned):
    """Returns torchvision's RoI features, computed level by level."""
    pooled = features[0].new_empty(len(rois), features[0].shape[1], *output_size)
    for level, scale in enumerate(SCALES[: len(features)]):
        here = levels == level
        pooled[here] = torchvision_roi_align(features[level], rois[here], output_size, scale, sampling_ratio, aligned)
    return pooled
