"""Converts images as the model normalises them to the values that a backbone was pre-trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_ext.errors import InputError

# Differences of scale and shift that are rounding: 123.675 is 255 x 0.485.
_ROUNDING = 1e-4
# |values| of images with a deviation near 57 stay below 3, with a deviation of 1 they reach 100.
_NORMALISED, _RAW = 5.0, 20.0


class InputConversion(nn.Module):
    """Flips the channels and applies one affine map for each channel; does nothing if the values are already right.

    The padding of a batch is 0 in the model's values. It becomes the value of the model's mean colour, which is 0 if the pre-training
    has the same mean.

    Attributes:
        mean: mean that the model subtracts, in its channel order, for pixels of 0 to 255.
        std: deviation that the model divides by.
        input_format: "BGR" or "RGB", the channel order of the model.
        is_identity: whether the values pass unchanged.

    Example:
        >>> conversion = InputConversion([0.0] * 3, [1.0] * 3, "BGR", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> conversion(torch.tensor([0.0, 127.5, 255.0]).view(1, 3, 1, 1)).flatten()
        tensor([ 1.,  0., -1.])
    """

    def __init__(
        self,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Prepares.

        Args:
            pixel_mean: mean that the model subtracts, one value a channel.
            pixel_std: deviation that the model divides by.
            input_format: channel order of the model.
            mean: mean of the pre-training for red, green and blue, for pixels of 0 to 1.
            std: deviation of the pre-training.

        Raises:
            InputError: the lengths differ, or the channel order of three channels is unknown.
        """
        super().__init__()
        self.mean, self.std, self.input_format = [*map(float, pixel_mean)], [*map(float, pixel_std)], input_format
        if len(self.mean) != len(self.std):
            raise InputError(
                f"pixel_mean={self.mean} and pixel_std={self.std} of the backbone have different lengths: give one value a channel"
            )
        self.flips, scale, shift = False, [1.0] * len(self.mean), [0.0] * len(self.mean)
        if len(self.mean) == 3:
            if input_format not in ("BGR", "RGB"):
                raise InputError(
                    f"input_format={input_format} of the backbone: its weights are for colours, set BGR or RGB as in model.input_format"
                )
            self.flips = input_format == "BGR"
            given = list(zip(self.mean, self.std, strict=True))
            wanted = [(255 * m, 255 * s) for m, s in zip(mean, std, strict=True)]
            pairs = list(zip(reversed(given) if self.flips else given, wanted, strict=True))
            scale = [s / to_s for (_, s), (_, to_s) in pairs]
            shift = [(m - to_m) / to_s for (m, _), (to_m, to_s) in pairs]
        self.scales = max(abs(s - 1) for s in scale) > _ROUNDING or max(map(abs, shift)) > _ROUNDING
        # Not in the state dict: they follow from the config.
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1), persistent=False)

    @property
    def is_identity(self) -> bool:
        return not (self.flips or self.scales)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), values of the model -> (N, C, H, W), values of the pre-training."""
        if self.flips:
            x = x.flip(1)
        if self.scales:
            x = x * self.scale + self.shift
        return x

    def extra_repr(self) -> str:
        return f"{self.input_format}, mean={self.mean}, std={self.std}"

    def check_values(self, x: Tensor) -> None:
        """Raises an InputError if the values cannot have been normalised as declared. Waits for the device.

        Args:
            x: a batch of images (N, C, H, W) as the model feeds it.
        """
        largest, std = x.abs().amax().item(), max(self.std)
        path, example = "model.backbone.bottom_up", "[57.375,57.12,58.395]"
        if std <= 2 and 0 < largest < _NORMALISED:
            raise InputError(
                f"the backbone expects pixel_std={self.std}, but the pixels are within +-{largest:.2g}, so the model divides them by its "
                f"own deviation: repeat model.pixel_mean, pixel_std and input_format in {path}, such as {path}.pixel_std={example}"
            )
        if std >= 30 and largest > _RAW:
            raise InputError(
                f"the backbone expects pixel_std={self.std}, but the pixels reach {largest:.3g}, so the model does not divide them: "
                f"repeat model.pixel_mean, pixel_std and input_format in {path}, such as {path}.pixel_std=[1.0,1.0,1.0]"
            )
