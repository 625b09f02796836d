"""Builds ResNet stages that ``ResNet.make_default_stages`` cannot: ResNeXt's groups and DC5's dilation."""

from __future__ import annotations

from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def make_bottleneck_stages(
    *,
    depth: int,
    norm: str = "FrozenBN",
    stride_in_1x1: bool = True,
    num_groups: int = 1,
    width_per_group: int = 64,
    res5_dilation: int = 1,
) -> list[list[CNNBlockBase]]:
    """Builds res2 to res5 of a bottleneck ResNet or ResNeXt, with Detectron2's parameter names.

    Args:
        depth: 50, 101 or 152 layers.
        norm: name of the norm in :func:`detectron2.layers.get_norm`.
        stride_in_1x1: whether the first 1 x 1 convolution of a stage has its stride (MSRA's weights) rather than the 3 x 3 one.
        num_groups: groups of the 3 x 3 convolution; 32 in "Aggregated Residual Transformations" (arXiv:1611.05431), table 1.
        width_per_group: channels of a group in res2; each later stage doubles them.
        res5_dilation: 2 keeps res5 at stride 16 ("DC5", Deformable ConvNets, arXiv:1703.06211, section 3.1), 1 at stride 32.

    Returns:
        Four stages for the ``stages`` argument of :class:`detectron2.modeling.ResNet`.

    Example:
        >>> [len(stage) for stage in make_bottleneck_stages(depth=50, num_groups=32, width_per_group=4)]
        [3, 4, 6, 3]
    """
    stages = []
    for index, blocks in enumerate(_BLOCKS[depth]):
        dilation = res5_dilation if index == 3 else 1
        first_stride = 1 if index == 0 or dilation > 1 else 2
        stage = ResNet.make_stage(
            BottleneckBlock,
            num_blocks=blocks,
            stride_per_block=[first_stride] + [1] * (blocks - 1),
            in_channels=64 if index == 0 else 128 * 2**index,
            out_channels=256 * 2**index,
            bottleneck_channels=num_groups * width_per_group * 2**index,
            num_groups=num_groups,
            norm=norm,
            stride_in_1x1=stride_in_1x1,
            dilation=dilation,
        )
        stages.append(stage)
    return stages
