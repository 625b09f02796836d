"""The tensors that the memory of a training step consists of."""

import pytest
import torch

from maskrcnn_ext.benchmark.training_memory import CHECKPOINTING, _peak, memory_of

CONFIG = "mask_rcnn_r18_fpn_scratch.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts a CPU's tensors")
def test_the_peak_is_counted_to_the_byte():
    kept = []

    def step():
        temporary = torch.zeros(1000, 1000)
        kept.append(temporary + 1)
        del temporary
        kept.append(torch.zeros(10))

    assert 8_000_000 <= _peak(step, 0) < 8_000_100
    assert 8_000_500 <= _peak(step, 500) < 8_000_600


def test_checkpointed_images_take_less_and_weights_gradients_and_momenta_are_fixed():
    found = {
        name: memory_of(CONFIG, "", CHECKPOINTING[name], False, (128, 160), torch.get_num_threads())
        for name in ("nothing", "backbone and heads")
    }
    (fixed, image), (_, less) = found.values()
    assert 0 < less < image
    assert fixed > 2 * 4 * 15e6  # a ResNet-18 with heads: weights and momenta
