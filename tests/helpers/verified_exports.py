"""The check that an exported model and the model find the same."""

from __future__ import annotations

import numpy as np

from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.recipe import build_recipe
from maskrcnn_ext.interop.export.runtimes import open_model
from maskrcnn_ext.interop.export.verify import Reference, verify
from tests.helpers.calibration import images
from tests.helpers.exporting import CLASSES

BLANK = np.full((96, 128, 3), 127, np.uint8)


def assert_export_passes(model, mapper, target, file, limits=None, batched=False):
    """Exports a model, checks that the runtime and the model find the same, and returns the runtime."""
    recipe = build_recipe(model, mapper, CLASSES, batched)
    runtime = open_model(export(model, recipe, target, file))
    shown = [(str(number), image) for number, image in enumerate([*images(), np.flip(images()[1]), BLANK])]
    results = list(verify(runtime, Reference(model, mapper), recipe, shown, limits, batch=2))
    assert [one.faults for one in results] == [[]] * len(shown), [one.line() for one in results]
    assert sum(one.expected for one in results) > 80
    return runtime
