"""The only module that knows which Detectron2 is installed. It asks for features: ``__version__`` is 0.6 on v0.6 and on main."""

import dataclasses
import importlib.util
from types import ModuleType

from maskrcnn_ext.errors import InputError


def detectron2_kind() -> str:
    """Returns "main" for a Detectron2 of the main branch, "v0.6" for the release."""
    from detectron2.layers import ShapeSpec

    # A named tuple in v0.6, a dataclass since.
    return "main" if dataclasses.is_dataclass(ShapeSpec) else "v0.6"


def has_compiled_operators() -> bool:
    """Whether ``detectron2._C`` loads: deformable and rotated operators and the fast COCOeval need it, Mask R-CNN does not."""
    try:
        from detectron2 import _C
    except ImportError:
        return False
    return isinstance(_C, ModuleType)


def has_vit() -> bool:
    """Whether the ViT backbone of ViTDet is there (main has it, v0.6 has not)."""
    return importlib.util.find_spec("detectron2.modeling.backbone.vit") is not None


def require_vit() -> None:
    """Raises InputError where the installed Detectron2 has no ViT backbone, or where the package that it needs is missing."""
    if not has_vit():
        raise InputError(
            "ViTDet needs detectron2.modeling.backbone.vit, which Detectron2 v0.6 lacks: install Detectron2's main branch "
            "(its INSTALL.md), or choose another config (maskrcnn-ext configs)"
        )
    if importlib.util.find_spec("timm") is None:
        raise InputError("ViTDet needs timm, which Detectron2 does not declare: python -m pip install timm")


def set_local_process_group(processes: int) -> None:
    """Tells Detectron2's ``comm`` which processes run on this machine, as its launcher does; for processes that others have started.

    Args:
        processes: on each machine; ranks are counted machine by machine.
    """
    import torch.distributed as dist
    from detectron2.utils import comm

    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes)
        return
    for first in range(0, dist.get_world_size(), processes):
        ranks = list(range(first, first + processes))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            # v0.6 has no other way: its launcher sets this as well.
            comm._LOCAL_PROCESS_GROUP = group
