"""Whether kernels in Triton run here: it takes a GPU, a driver, and a C compiler at run time."""

from __future__ import annotations

import functools
import logging

import torch

logger = logging.getLogger(__name__)


@functools.cache
def why_no_triton() -> str | None:
    """Why Triton's kernels do not run on the GPU, which the first call tries and logs; None where they do."""
    try:
        from maskrcnn_ext.ops import sorted_nms_triton

        one = torch.zeros(1, 1, 4, device="cuda")
        sorted_nms_triton.sorted_nms(one, torch.ones(1, 1, dtype=torch.bool, device="cuda"), 0.5)
    except Exception as error:  # of Triton, its compiler, the C compiler or the driver
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        logger.warning("RoIAlign on the GPU is slower, as Triton does not run here: %s", reason)
        return reason
    return None
