"""A step is tried with fewer and fewer images until it fits."""

import pytest

from maskrcnn_ext.config.zoo import load_config
from maskrcnn_ext.engine.trial_step import fitting_images, halve_until
from maskrcnn_ext.errors import InputError
from tests.helpers.small_run import small_run, spec_of


@pytest.mark.parametrize(("room", "images"), [(99, 16), (16, 16), (15, 8), (3, 2), (1, 1)])
def test_the_batch_is_halved_until_it_fits(room, images):
    assert halve_until(lambda count: count <= room, 16) == images


def test_not_even_one_image_is_one_line():
    with pytest.raises(InputError, match="one image does not fit into the memory"):
        halve_until(lambda _: False, 4)


def test_a_step_of_a_config_that_fits(shapes, tmp_path):
    cfg = load_config("domains/shapes.py", small_run(spec_of(shapes), tmp_path))
    assert fitting_images(cfg) == 2
    assert cfg.optimizer.params.model is None
