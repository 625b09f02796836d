"""The windows of a Swin Transformer on images of any size, as its authors' detectors have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_ext.common.extras import require

# Added to the attention between pixels that are not neighbours in the image.
_APART = -100.0


class DetectionBlock(nn.Module):
    """A block of a Swin Transformer (arXiv:2103.14030, section 3.2) that pads a map to whole windows before it shifts them.

    timm's block shifts the map first, pads it then, and masks the attention as if no padding were there. The two are the same if the
    windows divide the map. On other maps, timm's shifted windows mix the top of the image with the bottom, and left with right, which
    the weights of a detector have not learnt. A map of one window is shifted here, too.

    The layers and their names are those of timm's block.

    Attributes:
        window: (height, width) of a window, in positions of the map.
        shift: (rows, columns) by which the windows are shifted; 0 for none.
    """

    def __init__(self, block: nn.Module, *, is_shifted: bool) -> None:
        """Takes over the layers of one of timm's blocks.

        Args:
            block: a ``SwinTransformerBlock``; it must not be used any more.
            is_shifted: whether its windows are shifted.
        """
        super().__init__()
        self.window: tuple[int, int] = tuple(block.attn.window_size)
        self.shift = tuple(side // 2 if is_shifted else 0 for side in self.window)
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, H, W, C) to the same shape."""
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        """Returns the attention within windows; the padding takes part, as zeros."""
        images, height, width, channels = x.shape
        rows, columns = self.window
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded = x.shape[1], x.shape[2]
        mask = None
        if any(self.shift):
            x = x.roll((-self.shift[0], -self.shift[1]), dims=(1, 2))
            mask = shift_mask(padded, self.window, self.shift, like=x)
        grid = padded[0] // rows, padded[1] // columns
        windows = x.view(images, grid[0], rows, grid[1], columns, channels).transpose(2, 3)
        windows = self.attn(windows.reshape(-1, rows * columns, channels), mask=mask)
        x = windows.view(images, *grid, rows, columns, channels).transpose(2, 3).reshape(images, *padded, channels)
        if any(self.shift):
            x = x.roll(self.shift, dims=(1, 2))
        return x[:, :height, :width]


def shift_mask(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, ...], *, like: Tensor) -> Tensor:
    """Returns the mask to add to the attention in shifted windows: 0 between pixels that were in one window before, -100 between others.

    Args:
        size: (height, width) of the padded map.
        window: (height, width) of a window; divides the size.
        shift: (rows, columns) by which the map was rolled.
        like: has the device and dtype of the result.

    Returns:
        (windows, P, P) with P positions in a window, windows row by row.

    Example:
        >>> shift_mask((2, 2), (2, 2), (1, 1), like=torch.zeros(1))[0].tolist()[0]
        [0.0, -100.0, -100.0, -100.0]
    """
    # The regions of a side: up to the last window, the part of that window which stayed, and the part that was rolled in.
    region = []
    for side, length, step in zip(size, window, shift, strict=True):
        place = torch.arange(side, device=like.device)
        region.append((place >= side - length).long() + (place >= side - step).long())
    regions = 3 * region[0][:, None] + region[1]
    rows, columns = window
    regions = (
        regions.view(size[0] // rows, rows, size[1] // columns, columns).transpose(1, 2).reshape(-1, rows * columns)
    )
    apart = regions[:, None, :] != regions[:, :, None]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(apart, _APART)


def use_detection_windows(net: nn.Module) -> None:
    """Replaces the blocks of timm's Swin Transformer by :class:`DetectionBlock`, in place; leaves other networks as they are."""
    swin = require("timm.models.swin_transformer", extra="timm", purpose="this backbone")
    for stage in [module for module in net.modules() if type(module) is swin.SwinTransformerStage]:
        for index, block in enumerate(stage.blocks):
            stage.blocks[index] = DetectionBlock(block, is_shifted=index % 2 == 1)
