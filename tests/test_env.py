"""Detectron2's plugin hook registers the data sets of this package in any program that imports detectron2."""

import pytest

from maskrcnn_ext.env import setup_environment

HOOK = {"DETECTRON2_ENV_MODULE": "maskrcnn_ext.env"}
LIST = "from detectron2.data import DatasetCatalog as d; print(sorted(n for n in d.list() if 'nuclei' in n or 'balloon' in n))"
NAMES = "['balloon_train', 'balloon_val', 'nuclei_train', 'nuclei_val']"


def test_importing_detectron2_registers(run_python):
    assert run_python("-c", LIST, env=HOOK).stdout.strip() == NAMES
    assert run_python("-c", LIST).stdout.strip() == "[]", "without the hook nothing is registered"


@pytest.mark.parametrize(
    "module",
    [
        "maskrcnn_ext.data.registry.catalog",
        pytest.param("maskrcnn_ext.engine.trainer", marks=pytest.mark.slow),
        pytest.param("maskrcnn_ext.data", marks=pytest.mark.slow),
        pytest.param("maskrcnn_ext.config.zoo", marks=pytest.mark.slow),
    ],
)
def test_the_hook_works_whichever_module_is_imported_first(module, run_python):
    done = run_python("-c", f"import {module}; {LIST}", env=HOOK)
    assert done.stdout.strip() == NAMES, done.stderr


def test_setting_up_twice_changes_nothing():
    from detectron2.data import DatasetCatalog

    setup_environment()
    before = {name: DatasetCatalog[name] for name in DatasetCatalog.list()}
    setup_environment()
    assert {name: DatasetCatalog[name] for name in DatasetCatalog.list()} == before
