"""Counted costs of parts and networks, and the recorded ones that the tables show."""

import pytest

from maskrcnn_ext.modeling.cost import count_costs, head_cost, network_cost, pooler_cost
from maskrcnn_ext.modeling.part_tables import RECORDED_COSTS
from maskrcnn_ext.modeling.parts import MASK_HEADS, NETWORKS, POOLERS, find_part


def test_costs_equal_a_manual_count():
    cost = head_cost(find_part("FCNMaskHead"), channels=32, num_classes=5)
    convs = 4 * 32 * 32 * 9
    deconv, predictor = 32 * 32 * 4, 32 * 5
    assert cost.parameters == convs + 4 * 32 + deconv + 32 + predictor + 5
    assert cost.macs_per_roi == convs * 14 * 14 + deconv * 14 * 14 + predictor * 28 * 28
    assert cost.macs_per_image == 0
    assert cost.output_size == 28


def test_work_per_image_is_separated_from_work_per_roi():
    cost = head_cost(find_part("RefineMaskHead"), channels=32, num_classes=5)
    assert cost.macs_per_image > cost.macs_per_roi > 0
    assert pooler_cost(find_part("PreciseROIPooler"), channels=8) == (0, 0, 0, 14)
    assert pooler_cost(find_part("DeformableROIPooler"), channels=8).parameters > 0


def test_every_part_has_a_record():
    assert list(RECORDED_COSTS) == [part.name for part in [*MASK_HEADS, *POOLERS]]


@pytest.mark.parametrize("name", ["FCNMaskHead", "BoundaryMaskHead", "MaskScoringHead"])
def test_recorded_costs_of_light_heads(name):
    assert RECORDED_COSTS[name] == head_cost(find_part(name))


@pytest.mark.slow
def test_recorded_costs():
    assert count_costs() == RECORDED_COSTS


LIGHT = ("convnext_tiny", "swin_tiny", "lite0", "dinov2")


@pytest.mark.parametrize(
    "net",
    [net if any(part in net.name for part in LIGHT) else pytest.param(net, marks=pytest.mark.slow) for net in NETWORKS],
    ids=lambda net: net.name,
)
def test_recorded_costs_and_licences_of_networks(net):
    timm = pytest.importorskip("timm")
    assert network_cost(net.name) == (net.parameters, net.macs)
    licence = timm.get_pretrained_cfg(net.name).license
    assert net.licence.startswith(licence)
