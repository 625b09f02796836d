"""The catalogue of mask heads and RoI poolers: what each is, where it comes from, and the line that swaps it in. Plain data."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from maskrcnn_ext.errors import InputError

_HEADS = "maskrcnn_ext.modeling.mask_heads"
_POOLERS = "maskrcnn_ext.modeling.poolers"


@dataclass(frozen=True)
class Part:
    """A mask head or a pooler."""

    name: str  # of the class, exported by maskrcnn_ext
    module: str  # that defines it
    paper: str
    gain: str  # mask AP on COCO beside its own baseline, as published, and where
    pyramid: bool = False  # takes the feature maps only
    node: str = "mask_head"  # of model.roi_heads
    options: str = ""  # own keywords that the published version needs beside the defaults
    takes_channels: bool = False  # has layers for a number of channels that the config does not tell it

    def load(self) -> Any:
        """Imports and returns the class."""
        return getattr(import_module(self.module), self.name)

    def override(self) -> str:
        """The line that swaps the part in on any Mask R-CNN LazyConfig."""
        node = f"model.roi_heads.{self.node}"
        line = f"{node}._target_=maskrcnn_ext.{self.name}"
        if self.pyramid:
            line += " model.roi_heads.mask_pooler=null"
        return line + "".join(f" {node}.{option}" for option in self.options.split())

    def describe(self) -> str:
        """A page of text: source, override, what it does and every option."""
        found = self.load()
        text = "\n\n".join(filter(None, map(inspect.getdoc, (found, found.__init__))))
        return f"{self.name}\n{self.paper}; {self.gain}\n\n  {self.override()}\n\n{text}"


MASK_HEADS = [
    Part(
        "FCNMaskHead",
        f"{_HEADS}.fcn",
        "Mask R-CNN, arXiv:1703.06870",
        "the baseline: 35.2, R50-FPN 1x (Detectron2 model zoo)",
    ),
    Part("MLPMaskHead", f"{_HEADS}.mlp", "Mask R-CNN, arXiv:1703.06870", "-2.1 (table 2e)"),
    Part("SoftmaxMaskHead", f"{_HEADS}.softmax", "Mask R-CNN, arXiv:1703.06870", "-5.5, C4 (table 2b)"),
    Part("BoundaryMaskHead", f"{_HEADS}.boundary", "BMask R-CNN, arXiv:2007.08921", "+1.4 (its authors' README)"),
    Part("DCTMaskHead", f"{_HEADS}.dct", "DCT-Mask, arXiv:2011.09876", "+1.3 (its authors' README)"),
    Part("PatchDCTMaskHead", f"{_HEADS}.patch_dct", "PatchDCT, arXiv:2302.02693", "+2.0 (its authors' README)"),
    Part(
        "PointRendMaskHead",
        f"{_HEADS}.point_rend",
        "PointRend, arXiv:1912.08193",
        "+1.0 (Detectron2 projects/PointRend)",
        pyramid=True,
    ),
    Part(
        "ImplicitPointRendMaskHead",
        f"{_HEADS}.implicit_point_rend",
        "Implicit PointRend, arXiv:2104.06404",
        "none verified",
        pyramid=True,
    ),
    Part(
        "RefineMaskHead",
        f"{_HEADS}.refine_mask",
        "RefineMask, arXiv:2104.08569",
        "+2.6 (its authors' README, full variant)",
        pyramid=True,
    ),
    Part(
        "MaskScoringHead",
        f"{_HEADS}.mask_scoring",
        "Mask Scoring R-CNN, arXiv:1903.00241",
        "+1.4 (its authors' README); needs an evaluator that reads pred_mask_scores",
    ),
]

POOLERS = [
    Part(
        "FastROIPooler",
        f"{_POOLERS}.fast",
        "RoIAlign, arXiv:1703.06870",
        "none: Detectron2's own, faster",
        node="mask_pooler",
    ),
    Part(
        "GenericROIPooler",
        f"{_POOLERS}.generic",
        "GRoIE, arXiv:2004.13665; fuse=max: PANet, arXiv:1803.01534",
        "+1.3 with pre and post (MMDetection configs/groie)",
        node="mask_pooler",
        options="pre=conv post=attention",
        takes_channels=True,
    ),
    Part("PreciseROIPooler", f"{_POOLERS}.precise", "IoU-Net, arXiv:1807.11590", "none verified", node="mask_pooler"),
    Part(
        "ROIWarpPooler",
        f"{_POOLERS}.roi_warp",
        "MNC, arXiv:1512.04412",
        "-3.2, C4 (Mask R-CNN, table 2c)",
        node="mask_pooler",
    ),
    Part(
        "CropResizePooler",
        f"{_POOLERS}.crop_resize",
        "Matterport's Keras Mask R-CNN",
        "none: for its weights",
        node="mask_pooler",
    ),
    Part(
        "DeformableROIPooler",
        f"{_POOLERS}.deformable",
        "Deformable ConvNets v2, arXiv:1811.11168",
        "+1.5 box AP (MMDetection configs/dcn)",
        node="mask_pooler",
        takes_channels=True,
    ),
]


def find_part(name: str) -> Part:
    """Returns the part of that name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    parts = {part.name: part for part in [*MASK_HEADS, *POOLERS]}
    if name not in parts:
        near = difflib.get_close_matches(name, parts, n=3)
        raise InputError(
            f"no part {name!r}: "
            + (f"did you mean {' or '.join(near)}?" if near else "`maskrcnn-ext parts` lists them")
        )
    return parts[name]
