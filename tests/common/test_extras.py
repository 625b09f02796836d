"""Missing optional packages are one-line errors that name the extra to install."""

import sys

import pytest

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.errors import InputError


def test_an_installed_module_is_returned():
    assert require("os.path", extra="none", purpose="a test") is sys.modules["os.path"]


def test_a_missing_package_is_named_with_its_extra():
    expected = r'reading Keras weights needs not_installed: pip install "maskrcnn_ext\[keras\]"'
    with pytest.raises(InputError, match=expected):
        require("not_installed.part", extra="keras", purpose="reading Keras weights")


def test_the_package_that_an_installed_module_lacks_is_named(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import not_installed")
    (tmp_path / "broken.py").write_text("raise ImportError('libfoo.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="reading needs not_installed:"):
        require("half_installed", extra="x", purpose="reading")
    with pytest.raises(InputError, match=r"reading needs broken \(libfoo.so is missing\):"):
        require("broken", extra="x", purpose="reading")
