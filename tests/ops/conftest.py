"""Compiles Triton's kernels for GPUs, on any machine."""

import pytest


class Launches:
    """Replaces a kernel and records the arguments of its launches."""

    def __init__(self):
        self.all = []

    def __getitem__(self, grid):
        return lambda *arguments, **options: self.all.append((grid, arguments, options))


class Architecture:
    """Replaces Triton's driver: describes a GPU that this machine need not have."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self.capability

    def get_current_stream(self, _):
        return 0


@pytest.fixture(params=[80, 90], ids=["A100", "H100"])
def compile_launches(request, monkeypatch):
    """Returns a function that compiles every launch of a module's kernel, and returns the compiled kernels."""
    triton = pytest.importorskip("triton")
    # Without a GPU, Triton has no driver that could be restored.
    monkeypatch.setattr(triton.runtime.driver, "_active", Architecture(request.param))

    def compile_all(module, launch):
        kernel, launches = module._kernel, Launches()
        with monkeypatch.context() as patch:
            patch.setattr(module, "_kernel", launches)
            launch()
        return [kernel.warmup(*arguments, grid=grid, **options) for grid, arguments, options in launches.all]

    return compile_all
