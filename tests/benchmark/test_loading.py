"""The data loader compared with the training."""

from tests.benchmark.conftest import sides


def test_loading_is_compared_with_training(tables):
    (table,) = tables("loading", "--images", 12, "--batches", 1, "--workers", 0)
    assert sides(table) == ["Detectron2's mapper, 0 workers", "maskrcnn_ext's mapper, 0 workers", "training"]
    assert table["rows"][-1]["values"]["of the training's"] == 1
