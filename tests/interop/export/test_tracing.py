"""Programs of torch.export against Detectron2."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.runtimes import open_model
from tests.helpers.calibration import images, matched
from tests.helpers.exported_models import detector, exported  # noqa: F401 (fixtures)
from tests.helpers.exporting import tensor

GREY = np.full((96, 128, 3), 127, np.uint8)


def raw(model, image):
    """Detectron2's own inference, before anything is pasted."""
    with torch.no_grad():
        return model.inference([{"image": tensor(image)}], do_postprocess=False)[0]


@pytest.mark.slow
def test_torch_export_equals_detectron2(detector, exported):
    model, _ = detector
    runtime = open_model(exported("torch-export"))
    with pytest.raises(InputError, match="more than 64 pixels"):
        runtime._run(tensor(GREY[:64]).numpy())
    for image in (images()[0], GREY):
        expected = raw(model, image)
        found = runtime._run(tensor(image).numpy())
        order, distance = matched(
            *map(torch.from_numpy, (found["boxes"], found["classes"])),
            expected.pred_boxes.tensor,
            expected.pred_classes,
        )
        assert distance < 2e-3
        torch.testing.assert_close(
            torch.from_numpy(found["masks"])[order], expected.pred_masks[:, 0], rtol=0, atol=1e-3
        )
