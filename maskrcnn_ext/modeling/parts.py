"""The catalogue of mask heads and RoI poolers: the paper of each, its published gain, and the override that selects it. Plain data."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import maskrcnn_ext
from maskrcnn_ext.common.text import did_you_mean
from maskrcnn_ext.errors import InputError


@dataclass(frozen=True)
class Part:
    """A mask head or a pooler.

    Attributes:
        name: class name, one of the public names of ``maskrcnn_ext``.
        paper: name and arXiv number.
        gain: published difference in COCO mask AP to the authors' own baseline, and where it is published.
        pyramid: whether the part takes feature maps only, no RoI features.
        node: where it goes in ``model.roi_heads``.
        options: keywords that the published version sets, beside the defaults.
        takes_channels: whether it must know the number of channels, which a stock config does not pass to a pooler.
    """

    name: str
    paper: str
    gain: str
    pyramid: bool = False
    node: str = "mask_head"
    options: str = ""
    takes_channels: bool = False

    def load(self) -> Any:
        """Imports and returns the class."""
        return getattr(maskrcnn_ext, self.name)

    def override(self) -> str:
        """Returns the command-line overrides that select the part in any Mask R-CNN LazyConfig."""
        node = f"model.roi_heads.{self.node}"
        line = f"{node}._target_=maskrcnn_ext.{self.name}"
        if self.pyramid:
            line += " model.roi_heads.mask_pooler=null"
        return line + "".join(f" {node}.{option}" for option in self.options.split())

    def describe(self) -> str:
        """Returns a page of text: source, override, description and every option, also those of the base classes."""
        found = self.load()
        constructors = [
            cls.__init__
            for cls in found.__mro__
            if cls.__module__.startswith("maskrcnn_ext.") and "__init__" in vars(cls)
        ]
        text = "\n\n".join(filter(None, map(inspect.getdoc, [found, *constructors])))
        return f"{self.name}\n{self.paper}; {self.gain}\n\n  {self.override()}\n\n{text}"


MASK_HEADS = [
    Part("FCNMaskHead", "Mask R-CNN, arXiv:1703.06870", "the baseline: 35.2, R50-FPN 1x (Detectron2 model zoo)"),
    Part("MLPMaskHead", "Mask R-CNN, arXiv:1703.06870", "-2.1 (table 2e)"),
    Part("SoftmaxMaskHead", "Mask R-CNN, arXiv:1703.06870", "-5.5, C4 (table 2b)"),
    Part("BoundaryMaskHead", "BMask R-CNN, arXiv:2007.08921", "+1.4 (its authors' README)"),
    Part("DCTMaskHead", "DCT-Mask, arXiv:2011.09876", "+1.3 (its authors' README)"),
    Part("PatchDCTMaskHead", "PatchDCT, arXiv:2302.02693", "+2.0 (its authors' README)"),
    Part("PointRendMaskHead", "PointRend, arXiv:1912.08193", "+1.0 (Detectron2 projects/PointRend)", pyramid=True),
    Part("ImplicitPointRendMaskHead", "Implicit PointRend, arXiv:2104.06404", "none verified", pyramid=True),
    Part(
        "RefineMaskHead",
        "RefineMask, arXiv:2104.08569",
        "none verified: light form of FullRefineMaskHead",
        pyramid=True,
    ),
    Part("FullRefineMaskHead", "RefineMask, arXiv:2104.08569", "+2.6 (its authors' README)", pyramid=True),
    Part(
        "SimpleRefineMaskHead",
        "RefineMask, arXiv:2104.08569",
        "none verified (its authors' README: slightly better)",
        pyramid=True,
    ),
    Part(
        "MaskScoringHead",
        "Mask Scoring R-CNN, arXiv:1903.00241",
        "+1.4 (its authors' README); needs an evaluator that reads pred_mask_scores",
    ),
]

POOLERS = [
    Part("FastROIPooler", "RoIAlign, arXiv:1703.06870", "none: Detectron2's own, faster", node="mask_pooler"),
    Part(
        "GenericROIPooler",
        "GRoIE, arXiv:2004.13665; fuse=max: PANet, arXiv:1803.01534",
        "+1.3 as mask and box pooler (MMDetection configs/groie)",
        node="mask_pooler",
        options="pre=conv post=attention",
        takes_channels=True,
    ),
    Part("PreciseROIPooler", "IoU-Net, arXiv:1807.11590", "none verified", node="mask_pooler"),
    Part("ROIWarpPooler", "MNC, arXiv:1512.04412", "-3.2, C4 (Mask R-CNN, table 2c)", node="mask_pooler"),
    Part("CropResizePooler", "Matterport's Keras Mask R-CNN", "none: for its weights", node="mask_pooler"),
    Part(
        "DeformableROIPooler",
        "Deformable ConvNets v2, arXiv:1811.11168",
        "+1.5 box AP (MMDetection configs/dcn)",
        node="mask_pooler",
        takes_channels=True,
    ),
]


def find_part(name: str) -> Part:
    """Returns the part of a name.

    Raises:
        InputError: no part has that name; the message suggests similar names.

    Example:
        >>> find_part("DCTMaskHead").override()
        'model.roi_heads.mask_head._target_=maskrcnn_ext.DCTMaskHead'
    """
    parts = {part.name: part for part in [*MASK_HEADS, *POOLERS]}
    if name not in parts:
        hint = did_you_mean(name, parts) or "`maskrcnn-ext parts` lists them"
        raise InputError(f"no part {name!r}: {hint}")
    return parts[name]
