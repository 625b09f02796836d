"""Compiled libraries that are missing, broken or of another release, and whether Triton runs."""

import pytest

from maskrcnn_ext.ops.native import function, loads, triton_unavailable_reason
from maskrcnn_ext.ops.roi_align_cpu import _FILE as LIBRARY


def test_a_missing_library_is_an_error_that_names_the_cause(tmp_path):
    with pytest.raises(OSError, match=r"none\.so was not built: no C\+\+ compiler"):
        function(tmp_path / "none.so", "f_1")
    assert not loads(lambda: function(tmp_path / "none.so", "f_1"))


@pytest.mark.skipif(not LIBRARY.is_file(), reason="no compiled library")
def test_a_function_of_another_release_is_an_error():
    assert loads(lambda: function(LIBRARY, "roi_align_1"))
    with pytest.raises(OSError, match="belongs to another release"):
        function(LIBRARY, "roi_align_0")


def test_without_a_gpu_the_reason_is_logged_once(run_python):
    code = "from maskrcnn_ext.ops.native import triton_unavailable_reason as why; print(why() == why(), why())"
    done = run_python("-c", code, env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.stdout.startswith("True ")
    assert "None" not in done.stdout
    assert done.stderr.count("RoIAlign on the GPU is slower, as Triton does not run here: ") == 1


@pytest.mark.gpu
def test_triton_runs_on_a_gpu():
    assert triton_unavailable_reason() is None
