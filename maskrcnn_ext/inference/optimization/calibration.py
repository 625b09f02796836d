"""The scales and means of the maps of an int8 model: measured on images, and kept in a file beside the weights."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskrcnn_ext import __version__
from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.optimization.convolution import FusedConv2d, FusedUpsampling
from maskrcnn_ext.inference.optimization.layers import FusedLayers
from maskrcnn_ext.ops.quantized import Scale, scale_of_range
from maskrcnn_ext.ops.workspace import Workspace

# Values of each map that are kept for each image: enough to choose a range, and small in memory.
_SAMPLES = 8192
# Ranges that are tried, as shares of the range of all values.
_SHARES = torch.linspace(1.0, 0.3, 29).tolist()
# Changes when scales are chosen or named in another way.
_VERSION = 2

# (name of a layer's weight, "input" or "output") -> scale of that map.
Scales = dict[tuple[str, str], Scale]


class Calibration(NamedTuple):
    """The measurements on the images.

    Attributes:
        scales: of the maps.
        means: name of a layer's weight -> mean of each channel of its input.
    """

    scales: Scales
    means: dict[str, list[float]]


class Observer:
    """Collects samples of maps, and chooses the scale of each."""

    def __init__(self) -> None:
        """Starts without samples."""
        self._samples: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        self._ranges: dict[tuple[str, str], tuple[float, float]] = {}
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def see(self, layer: str, kind: str, x: Tensor) -> None:
        """Takes samples of the input or output of a layer.

        Raises:
            InputError: a value is not finite.
        """
        if not x.numel():
            return
        key = layer, kind
        low, high = (float(value) for value in x.aminmax())
        if not math.isfinite(high - low):
            raise InputError(
                f"optimize: the {kind} of {layer} is not finite on a calibration image: check image and weights"
            )
        known = self._ranges.get(key, (low, high))
        self._ranges[key] = min(low, known[0]), max(high, known[1])
        pixels = x.permute(0, 2, 3, 1).flatten(0, 2) if x.dim() == 4 else x
        if kind == "input":
            total, count = self._sums.get(layer, (0.0, 0))
            self._sums[layer] = total + pixels.sum(0, dtype=torch.float64), count + len(pixels)
        values = pixels.reshape(-1)
        # An odd step visits all channels, whose number is even.
        step = max(len(values) // _SAMPLES, 1) | 1
        self._samples[key].append(values[::step].float().clone())

    def result(self) -> Calibration:
        """Returns the scale of each map that was seen, with the smallest squared error of its samples, and the means of inputs."""
        scales = {key: choose_scale(torch.cat(self._samples[key]), *limits) for key, limits in self._ranges.items()}
        return Calibration(scales, {layer: torch.div(*sums).tolist() for layer, sums in self._sums.items()})


def choose_scale(samples: Tensor, low: float, high: float) -> Scale:
    """Returns the scale with the smallest squared error, rounding and clamping together, of some shares of a range.

    Args:
        samples: (S,) float32.
        low: smallest of all values, of which `samples` are a part.
        high: largest of all values.
    """
    best, error = scale_of_range(low, high), torch.inf
    for share in _SHARES:
        scale = scale_of_range(share * low, share * high)
        integers = (samples / scale.scale + scale.zero_point).round_().clamp_(0, 255)
        new = float((integers - scale.zero_point).mul_(scale.scale).sub_(samples).square_().mean())
        if new < error:
            best, error = scale, new
    return best


class ObservedConv2d(FusedConv2d):
    """A FusedConv2d whose inputs and outputs an observer sees."""

    observer: Observer
    label: str

    def forward(self, x: Tensor) -> Tensor:
        """Computes what FusedConv2d does."""
        self.observer.see(self.label, "input", x)
        out = super().forward(x)
        self.observer.see(self.label, "output", out)
        return out

    def add(self, x: Tensor, residual: Tensor, *, relu: bool, overwrite: bool = False) -> Tensor:
        """Computes what FusedConv2d does."""
        self.observer.see(self.label, "input", x)
        out = super().add(x, residual, relu=relu, overwrite=overwrite)
        self.observer.see(self.label, "output", out)
        return out

    def add_upsampled(self, x: Tensor, residual: Tensor) -> Tensor:
        """Computes what FusedConv2d does."""
        self.observer.see(self.label, "input", x)
        return super().add_upsampled(x, residual)


class ObservedLayers(FusedLayers):
    """Makes the layers of a float32 model whose maps an observer sees."""

    def __init__(self, workspace: Workspace, names: dict[int, str], observer: Observer) -> None:
        """Takes what :func:`weight_names` returns, and the observer."""
        super().__init__(torch.float32, workspace)
        self.names, self.observer = names, observer

    def conv(self, conv: nn.Module, name: str = "", *, relu: bool = False) -> FusedConv2d:  # noqa: ARG002
        """See :meth:`FusedLayers.conv`."""
        fused = ObservedConv2d(conv, dtype=torch.float32, workspace=self.workspace, relu=relu)
        fused.observer, fused.label = self.observer, self.names.get(id(conv.weight), "")
        return fused

    def layer(self, layer: nn.Module, name: str) -> nn.Module | None:
        """See :meth:`FusedLayers.layer`."""
        fused = super().layer(layer, name)
        if type(layer) is nn.Linear or isinstance(fused, FusedUpsampling):
            label = self.names.get(id(layer.weight), "")
            (fused or layer).register_forward_pre_hook(lambda _, args: self.observer.see(label, "input", args[0]))
        if type(layer) is nn.Linear:
            layer.register_forward_hook(lambda _, __, out: self.observer.see(label, "output", out.relu()))
        return fused


def weight_names(model: nn.Module) -> dict[int, str]:
    """Returns the id of each parameter with its name. Fused layers keep the parameters until they are built."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def weights_digest(model: nn.Module) -> str:
    """Returns a hash of the parameters and buffers of a model, and of the release of this package."""
    digest = hashlib.sha256(f"{__version__} {_VERSION}".encode())
    for name, value in (*model.named_parameters(), *model.named_buffers()):  # also buffers that no checkpoint has
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class CalibrationFile:
    """A calibration in a JSON file, for one state of the weights and the images.

    Example::

        file = CalibrationFile(Path("output/run/model_final.int8.json"), key)
        calibration = file.read()  # None if it is of other weights or images
    """

    def __init__(self, path: Path, key: str) -> None:
        """Sets the file; `key` identifies weights and images."""
        self.path, self.key = path, key

    def read(self) -> Calibration | None:
        """Returns the calibration; None if the file is missing, damaged, or of another key."""
        try:
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
            if content["key"] != self.key:
                return None
            scales = {
                (layer, kind): Scale(float(scale), int(zero_point))
                for layer, kinds in content["scales"].items()
                for kind, (scale, zero_point) in kinds.items()
            }
            means = {layer: [float(mean) for mean in means] for layer, means in content["means"].items()}
            return Calibration(scales, means)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, calibration: Calibration) -> None:
        """Writes a calibration."""
        layers: dict[str, dict[str, Scale]] = defaultdict(dict)
        for (layer, kind), scale in calibration.scales.items():
            layers[layer][kind] = scale
        write_atomic(self.path, json.dumps({"key": self.key, "scales": layers, "means": calibration.means}, indent=1))


def digest_of(parts: Iterable[str]) -> str:
    """Returns a hash of texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
