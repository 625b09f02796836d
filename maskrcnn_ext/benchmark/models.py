"""The models and the image that several parts measure with: random weights, yet as many proposals and detections as trained ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

_LEVELS = (0.4, 0.7, 1.0, 1.3)
R50 = "mask_rcnn_r50_fpn_1x.py"
# For every config: the images are given in the size that the model is to see.
NO_RESIZE = "dataloader.test.mapper.augmentations=[]"
# Layers of Detectron2 and of torchvision -> deviation of their outputs: objectness and classes that differ between places, boxes that
# move by a part of their size; coarser levels stand out more, so that boxes are of all sizes.
_DEVIATIONS = {
    **{f"fpn_output{level}": scale for level, scale in enumerate(_LEVELS, 2)},
    **{f"fpn.layer_blocks.{index}.0": scale for index, scale in enumerate(_LEVELS)},
    "rpn_head.objectness_logits": 2.0,
    "rpn_head.anchor_deltas": 0.3,
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.3,
    "box_predictor.cls_score": 2.0,
    "box_predictor.bbox_pred": 0.5,
}
_MASK_LOGITS = ("mask_head.predictor", "mask_predictor.mask_fcn_logits")


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Returns a random image (height, width, 3), uint8, whose contrast falls with the frequency as a photograph's does."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        coarse = rng.standard_normal((2**octave + 1, 2**octave + 1, 3)).astype(np.float32)
        pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / octave
    pixels = 127 + 50 * (pixels - pixels.mean((0, 1))) / pixels.std((0, 1))
    return np.asarray(np.clip(pixels, 0, 255).astype(np.uint8))


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Returns an image (H, W, 3), blue, green, red, as Detectron2's models take it: (3, H, W)."""
    import torch

    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def size(text: str) -> tuple[int, int]:
    """Reads an argument such as 800x1216: height and width."""
    height, width = text.split("x")
    return positive(height), positive(width)


def positive(text: str) -> int:
    """Reads an argument that is a whole number of 1 or more."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def device() -> str:
    """Where to measure: on the GPU, where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronised(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns once the GPU, where there is one, has done what it was told."""
    import torch

    def finished(*arguments: Any) -> Any:
        result = function(*arguments)
        torch.cuda.synchronize()
        return result

    return finished if device() == "cuda" else function


def computes_bf16() -> bool:
    """Whether the processor, or the GPU where there is one, has instructions for bfloat16."""
    import torch

    from maskrcnn_ext.engine.machine import describe_machine

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool({"AVX-512 BF16", "AMX"}.intersection(describe_machine()["instructions"]))


def detectron2_weights(file: Path, config: str, overrides: Sequence[str], size: tuple[int, int]) -> Path:
    """Writes calibrated weights of a config's model; returns the file.

    Args:
        file: to write.
        config: as `maskrcnn_ext.Predictor` takes it.
        overrides: for it.
        size: height and width of the image to calibrate with.
    """
    import torch

    model = detectron2_model(config, "", overrides, device="cpu")
    calibrate(model, lambda: model.inference([{"image": to_tensor(photograph(*size))}], do_postprocess=False))
    torch.save({"model": model.state_dict()}, file)
    return file


def detectron2_model(config: str, weights: str | Path, overrides: Sequence[str] = (), device: str | None = None) -> Any:
    """Builds what a config says, in evaluation mode; weights of "" are random, and always the same."""
    import torch

    from maskrcnn_ext.inference.loading import load_model

    torch.manual_seed(0)
    return load_model(config, str(weights), device=device, overrides=overrides).model


def quick_predictor(config: str, weights: str | Path, dtype: str = "fp32", overrides: Sequence[str] = ()) -> Any:
    """Builds our optimized Predictor, which leaves the images in their size."""
    from maskrcnn_ext import Predictor

    return Predictor(config, str(weights), overrides=[NO_RESIZE, *overrides], optimize=True, dtype=dtype)


def torchvision_weights(file: Path, size: tuple[int, int]) -> Path:
    """Writes calibrated weights of torchvision's maskrcnn_resnet50_fpn; see :func:`detectron2_weights`."""
    import torch

    model = torchvision_model(size)
    image = torch.from_numpy(photograph(*size)[:, :, ::-1].transpose(2, 0, 1) / 255).float()
    calibrate(model, lambda: model([image]))
    torch.save(model.state_dict(), file)
    return file


def torchvision_model(size: tuple[int, int], weights: Path | None = None, num_classes: int = 80) -> Any:
    """Builds maskrcnn_resnet50_fpn as with torchvision's trained weights: norms frozen; images of `size` are not resized."""
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
    """Gives random weights activations of about 1, proposals and detections all over the image, and masks that are blobs.

    All of it in one pass: each layer is changed as its first input arrives.

    Args:
        model: Detectron2's or torchvision's, in evaluation mode.
        predict: runs it on an image.
    """
    import torch
    from torch import nn

    def once(module: nn.Module, change: Callable[[Any, torch.Tensor], None]) -> None:
        def hook(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            handle.remove()
            change(layer, arguments[0])

        handle = module.register_forward_pre_hook(hook)

    for name, module in model.named_modules():
        scale = next((scale for end, scale in _DEVIATIONS.items() if name.endswith(end)), None)
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            once(module, _take_statistics)
        elif scale is not None:
            once(module, partial(_spread, deviation=scale))
        elif name.endswith(_MASK_LOGITS):
            once(module, _centre)
        elif ".mask_" in name and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            once(module, _average)
    with torch.no_grad():
        predict()


def _take_statistics(norm: Any, x: torch.Tensor) -> None:
    norm.running_mean.copy_(x.mean((0, 2, 3)))
    norm.running_var.copy_(x.var((0, 2, 3), correction=0) + 1e-3)


def _spread(layer: Any, x: torch.Tensor, deviation: float) -> None:
    """Gives each channel of a layer's outputs the mean 0, and all of them together the deviation."""
    if getattr(layer, "norm", None) is not None:
        return
    layer.weight.normal_()
    layer.bias.zero_()
    out = layer(x)
    mean = out.mean([axis for axis in range(out.ndim) if axis != 1], keepdim=True)
    scale = deviation / (out - mean).std()
    layer.weight.mul_(scale)
    layer.bias.copy_(-mean.flatten() * scale)


def _average(layer: Any, x: torch.Tensor) -> None:
    """Makes a layer of what has passed a ReLU a weighted mean, which is lower at the border, where it is padded."""
    import torch

    if bool((x >= 0).all()):
        layer.weight.abs_()
        inputs = 0 if isinstance(layer, torch.nn.ConvTranspose2d) else (1, 2, 3)
        layer.weight.div_(layer.weight.sum(dim=inputs, keepdim=True))


def _centre(layer: Any, x: torch.Tensor) -> None:
    """Makes those pixels the objects' whose logits are above the mean, those in the middle."""
    layer.weight.abs_()
    layer.bias.zero_()
    logits = layer(x).transpose(0, 1).flatten(1)  # (classes, pixels)
    scale = 2 / logits.std(dim=1, keepdim=True)
    layer.weight.mul_(scale[:, :, None, None])
    layer.bias.copy_(-logits.mean(dim=1) * scale[:, 0])
