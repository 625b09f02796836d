"""Shipped configs are found by name, in a checkout and in a wheel; a wrong name suggests similar ones."""

import subprocess
import sys
import zipfile

import pytest

from maskrcnn_ext import InputError, compat, get_config
from maskrcnn_ext.config.zoo import config_path, config_root, find_config, list_configs
from tests.conftest import ROOT


def test_names_may_leave_out_the_suffix():
    assert (
        config_path("mask_rcnn_r50_fpn_1x")
        == config_path("mask_rcnn_r50_fpn_1x.py")
        == config_root() / "mask_rcnn_r50_fpn_1x.py"
    )


def test_a_wrong_name_suggests_similar_ones():
    with pytest.raises(
        InputError, match=r"no config 'mask_rcnn_r50_fpn_2x.py'.*did you mean .*mask_rcnn_r50_fpn_[13]x\.py"
    ):
        get_config("mask_rcnn_r50_fpn_2x.py")
    with pytest.raises(InputError, match=rf"`maskrcnn-ext configs` lists all {len(list_configs())}$"):
        get_config("zzz")


def test_a_path_is_not_taken_for_the_name_of_a_shipped_config(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    for path in (tmp_path / "rnu", tmp_path / "no_config.py"):
        with pytest.raises(InputError) as found:
            find_config(str(path))
        assert str(found.value) == f"{path}: no such file or folder; runs near it: {tmp_path / 'run'}"
    with pytest.raises(InputError, match=r"^\./my.py: no such file or folder"):
        find_config("./my.py")
    with pytest.raises(InputError, match=f"run is a folder, not a config file: name {tmp_path}/run/config.yaml$"):
        find_config(str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"^no config 'domains/zzz' ships"):
        find_config("domains/zzz")


@pytest.mark.skipif(compat.has_vit(), reason="this Detectron2 has ViT")
def test_vitdet_names_its_requirement():
    with pytest.raises(InputError, match="install Detectron2's main branch"):
        get_config("mask_rcnn_vitdet_b_100ep.py")


@pytest.mark.slow
def test_a_wheel_carries_the_configs(tmp_path, run_python):
    """Built, unpacked and imported away from the checkout."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    code = "import maskrcnn_ext.config.zoo as z; print(z.config_root()); z.get_config('domains/nuclei.py')"
    code += "; print(*z.list_configs(), sep='\\n')"
    done = run_python("-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}")
    folder, *names = done.stdout.splitlines()
    assert folder == str(tmp_path / "site/maskrcnn_ext/configs"), done.stderr
    assert names == list_configs()
