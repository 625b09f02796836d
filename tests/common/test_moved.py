"""Import paths of version 0.1.0 lead to the same objects, with a warning that names the new path."""

import importlib

import pytest
from detectron2.utils.registry import locate

from maskrcnn_ext.common.moved import MOVED, forward

# `_target_`s in the config.yaml that runs of version 0.1.0 have saved, and what they are now.
TARGETS = {
    "data.catalog.get_dataset_dicts": "get_dataset_dicts",
    "data.mapper.SafeMapper": "SafeMapper",
    "data.sampling.repeat_factor_sampler": "repeat_factor_sampler",
    "data.tiles.get_tiled_dataset_dicts": "get_tiled_dataset_dicts",
    "data.augmentation.albumentations.AlbumentationsAugmentation": "AlbumentationsAugmentation",
    "data.augmentation.copy_paste.CopyPasteMapper": "CopyPasteMapper",
    "data.augmentation.loader.build_train_loader": "build_train_loader",
    "zoo.get_config": "get_config",
}
# What the documentation of version 0.1.0 imported, and the two modules that scripts use most.
IMPORTS = [
    ("data.catalog", "get_dataset_dicts"),
    ("data.mapper", "SafeMapper"),
    ("zoo", "config_path"),
    ("data.keypoints", "Skeleton"),
    ("data.keypoints", "hflip_indices"),
    ("interop.runtimes", "open_model"),
    ("interop.recipe", "Recipe"),
    ("interop.recipe", "scale_boxes"),
    ("interop.standalone.opencv_infer", "encode"),
    ("interop.standalone.paste", "paste"),
]


@pytest.mark.parametrize("old", MOVED)
def test_every_old_path_leads_to_something(old):
    package, _, name = f"maskrcnn_ext.{old}".rpartition(".")
    with pytest.warns(DeprecationWarning, match=MOVED[old]):
        found = forward(package)(name)
    assert found.__name__.rpartition(".")[2] == MOVED[old].rpartition(".")[2]


@pytest.mark.parametrize("old", TARGETS)
def test_targets_of_older_runs_are_found(old):
    import maskrcnn_ext

    with pytest.warns(DeprecationWarning, match=f"maskrcnn_ext.{old.rpartition('.')[0]}.* has moved to maskrcnn_ext"):
        found = locate(f"maskrcnn_ext.{old}")
    assert found is getattr(maskrcnn_ext, TARGETS[old])


@pytest.mark.parametrize(("module", "name"), IMPORTS)
def test_documented_imports_of_older_programs_work(module, name):
    old = importlib.import_module(f"maskrcnn_ext.{module}")
    with pytest.warns(DeprecationWarning, match=f"has moved to maskrcnn_ext.{MOVED[module]}.{name}"):
        found = getattr(old, name)
    assert found is getattr(importlib.import_module(f"maskrcnn_ext.{MOVED[module]}"), name)


def test_unknown_names_stay_unknown():
    import maskrcnn_ext.data

    with pytest.raises(AttributeError, match=r"module 'maskrcnn_ext\.data' has no attribute 'mappper'"):
        maskrcnn_ext.data.mappper  # noqa: B018
    assert not hasattr(importlib.import_module("maskrcnn_ext.interop.runtimes"), "open_modle")
