"""The models and images of the benchmarks. The weights are random, but produce as many proposals and detections as trained ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

_LEVEL_DEVIATIONS = (0.4, 0.7, 1.0, 1.3)
R50 = "mask_rcnn_r50_fpn_1x.py"
LIGHT = "mask_rcnn_efficientnet_lite0_fpn_1x.py"
# Overrides for all configs: images are not resized.
NO_RESIZE = "dataloader.test.mapper.augmentations=[]"
# Layers of Detectron2 and torchvision -> standard deviation of their outputs: objectness and classes differ between positions, boxes move
# by a fraction of their size. Coarser levels have larger values, so that boxes of all sizes are detected.
_DEVIATIONS = {
    **{f"fpn_output{level}": scale for level, scale in enumerate(_LEVEL_DEVIATIONS, 2)},
    **{f"fpn.layer_blocks.{index}.0": scale for index, scale in enumerate(_LEVEL_DEVIATIONS)},
    "rpn_head.objectness_logits": 2.0,
    "rpn_head.anchor_deltas": 0.3,
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "box_predictor.cls_score": 2.0,
    "box_predictor.bbox_pred": 0.5,
}
_MASK_LOGITS = ("mask_head.predictor", "mask_predictor.mask_fcn_logits")


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Returns a random image (height, width, 3), uint8, whose contrast falls with the frequency as in a photograph."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        coarse = rng.standard_normal((2**octave + 1, 2**octave + 1, 3)).astype(np.float32)
        pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / octave
    pixels = 127 + 50 * (pixels - pixels.mean((0, 1))) / pixels.std((0, 1))
    return np.asarray(np.clip(pixels, 0, 255).astype(np.uint8))


def calibration_images(size: tuple[int, int]) -> list[np.ndarray]:
    """Returns the images of `size` (height, width) on which models in 8 bits are calibrated."""
    return [photograph(*size, seed) for seed in (1, 2)]


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Returns an image (H, W, 3), BGR, as a tensor (3, H, W) for Detectron2's models."""
    import torch

    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def size(text: str) -> tuple[int, int]:
    """Parses a size such as 800x1216 to height and width.

    Example:
        >>> size("800x1216")
        (800, 1216)
    """
    height, width = text.split("x")
    return positive(height), positive(width)


def positive(text: str) -> int:
    """Parses an integer of 1 or more."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def device() -> str:
    """Returns the device to measure on: "cuda" if there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronised(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, followed by a wait for the GPU if there is one."""
    import torch

    def synchronised_function(*arguments: Any) -> Any:
        result = function(*arguments)
        torch.cuda.synchronize()
        return result

    return synchronised_function if device() == "cuda" else function


def computes_bf16() -> bool:
    """Whether the GPU, or the CPU if there is no GPU, has instructions for bfloat16."""
    import torch

    from maskrcnn_ext.engine.machine import describe_machine

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool({"AVX-512 BF16", "AMX"}.intersection(describe_machine()["instructions"]))


def computes_int8() -> bool:
    """Whether models are measured on a CPU that has instructions for 8-bit integers."""
    from maskrcnn_ext.ops.quantized import is_supported

    return device() == "cpu" and is_supported()


def detectron2_weights(file: Path, config: str, overrides: Sequence[str], size: tuple[int, int]) -> Path:
    """Writes calibrated weights of a config's model and returns the file.

    Args:
        file: the file to write.
        config: a config as `maskrcnn_ext.Predictor` accepts it.
        overrides: overrides of the config.
        size: height and width of the image for the calibration.
    """
    import torch

    model = detectron2_model(config, "", overrides, device="cpu")
    calibrate(model, lambda: model.inference([{"image": to_tensor(photograph(*size))}], do_postprocess=False))
    torch.save({"model": model.state_dict()}, file)
    return file


def detectron2_model(config: str, weights: str | Path, overrides: Sequence[str] = (), device: str | None = None) -> Any:
    """Builds a config's model in evaluation mode; weights "" are random with a fixed seed."""
    import torch

    from maskrcnn_ext.inference.loading import load_model

    torch.manual_seed(0)
    return load_model(config, str(weights), device=device, overrides=overrides).model


def quick_predictor(
    config: str,
    weights: str | Path,
    dtype: str = "fp32",
    overrides: Sequence[str] = (),
    size: tuple[int, int] = (640, 640),
) -> Any:
    """Builds an optimized Predictor that does not resize images; int8 is calibrated on two images of `size`."""
    from maskrcnn_ext import Predictor

    images = calibration_images(size) if dtype == "int8" else []
    overrides = [NO_RESIZE, *overrides]
    return Predictor(config, str(weights), overrides=overrides, optimize=True, dtype=dtype, calibrate=images)


def torchvision_weights(file: Path, size: tuple[int, int]) -> Path:
    """Writes calibrated weights of torchvision's maskrcnn_resnet50_fpn; see :func:`detectron2_weights`."""
    import torch

    model = torchvision_model(size)
    image = torch.from_numpy(photograph(*size)[:, :, ::-1].transpose(2, 0, 1) / 255).float()
    calibrate(model, lambda: model([image]))
    torch.save(model.state_dict(), file)
    return file


def torchvision_model(size: tuple[int, int], weights: Path | None = None, num_classes: int = 80) -> Any:
    """Builds torchvision's maskrcnn_resnet50_fpn as for trained weights, with frozen norms; images of `size` are not resized."""
    import torch
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None)
    model = MaskRCNN(backbone, num_classes=num_classes + 1, min_size=min(size), max_size=max(size)).eval()
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model


def calibrate(model: nn.Module, predict: Callable[[], Any]) -> None:
    """Changes random weights so that activations are about 1, detections cover the whole image, and masks are blobs.

    One forward pass is enough: each layer is changed when its first input arrives.

    Args:
        model: a model of Detectron2 or torchvision, in evaluation mode.
        predict: runs the model on an image.
    """
    import torch
    from torch import nn

    def on_first_input(module: nn.Module, change: Callable[[Any, torch.Tensor], None]) -> None:
        def hook(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            handle.remove()
            change(layer, arguments[0])

        handle = module.register_forward_pre_hook(hook)

    for name, module in model.named_modules():
        scale = next((scale for end, scale in _DEVIATIONS.items() if name.endswith(end)), None)
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            on_first_input(module, _set_statistics)
        elif scale is not None:
            on_first_input(module, partial(_normalise_outputs, deviation=scale))
        elif name.endswith(_MASK_LOGITS):
            on_first_input(module, _centre_mask_logits)
        elif ".mask_" in name and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            on_first_input(module, _make_average)
    with torch.no_grad():
        predict()


def _set_statistics(norm: Any, x: torch.Tensor) -> None:
    """Sets the running statistics of a norm to those of its input."""
    norm.running_mean.copy_(x.mean((0, 2, 3)))
    norm.running_var.copy_(x.var((0, 2, 3), correction=0) + 1e-3)


def _normalise_outputs(layer: Any, x: torch.Tensor, deviation: float) -> None:
    """Scales a layer so that each channel of its output has mean 0 and all channels together have the standard deviation."""
    if getattr(layer, "norm", None) is not None:
        return
    layer.weight.normal_()
    layer.bias.zero_()
    out = layer(x)
    mean = out.mean([axis for axis in range(out.ndim) if axis != 1], keepdim=True)
    scale = deviation / (out - mean).std()
    layer.weight.mul_(scale)
    layer.bias.copy_(-mean.flatten() * scale)


def _make_average(layer: Any, x: torch.Tensor) -> None:
    """Makes a layer that follows a ReLU a weighted mean of its input; at the border, padding lowers it."""
    import torch

    if bool((x >= 0).all()):
        layer.weight.abs_()
        inputs = 0 if isinstance(layer, torch.nn.ConvTranspose2d) else (1, 2, 3)
        layer.weight.div_(layer.weight.sum(dim=inputs, keepdim=True))


def _centre_mask_logits(layer: Any, x: torch.Tensor) -> None:
    """Scales mask logits to mean 0, so that masks are the pixels above the mean, in the middle of the boxes."""
    layer.weight.abs_()
    layer.bias.zero_()
    logits = layer(x).transpose(0, 1).flatten(1)  # (classes, pixels)
    scale = 2 / logits.std(dim=1, keepdim=True)
    layer.weight.mul_(scale[:, :, None, None])
    layer.bias.copy_(-logits.mean(dim=1) * scale[:, 0])
