"""Rotary positions in a traced graph equal timm's, for maps of any size."""

import pytest
import torch
from torch import nn

from maskrcnn_ext.modeling.backbones.rotary_positions import RotaryPositions, use_rotary_positions

layers = pytest.importorskip("timm.layers")
ROPES = {
    "EVA-02": lambda: layers.RotaryEmbeddingCat(16, in_pixels=False, ref_feat_shape=[3, 5]),
    "columns first": lambda: layers.RotaryEmbeddingCat(
        16, in_pixels=False, grid_indexing="xy", grid_offset=1.0, ref_feat_shape=[3, 5], rotate_half=True
    ),
    "DINOv3": lambda: layers.RotaryEmbeddingDinoV3(16, grid_offset=0.25),
}


class Net(nn.Module):
    """A network that asks for the positions of its map."""

    def __init__(self, rope):
        super().__init__()
        self.rope = rope

    def forward(self, x):
        return self.rope.get_embed(shape=x.shape)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:FutureWarning")
@pytest.mark.parametrize("kind", ROPES)
def test_a_graph_computes_the_positions_of_other_sizes(kind):
    net, plain = Net(ROPES[kind]()), Net(ROPES[kind]())
    use_rotary_positions(net)
    assert type(net.rope) is RotaryPositions
    assert not net.state_dict()
    traced = torch.jit.trace(net, torch.zeros(4, 6))
    exported = torch.export.export(
        net, (torch.zeros(4, 6),), dynamic_shapes=[{0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}]
    )
    for size in ((4, 6), (7, 3), (2, 9)):
        x = torch.zeros(size)
        assert torch.equal(net(x), plain(x))
        torch.testing.assert_close(traced(x), plain(x))
        torch.testing.assert_close(exported.module()(x), plain(x))


def test_other_networks_stay():
    fixed = layers.RotaryEmbeddingCat(16, in_pixels=False, feat_shape=[2, 3])
    for rope in (None, nn.Identity(), layers.RotaryEmbeddingCat(16), fixed):
        net = Net(rope)
        use_rotary_positions(net)
        assert net.rope is rope
    net = nn.Identity()
    use_rotary_positions(net)
    assert not hasattr(net, "rope")
