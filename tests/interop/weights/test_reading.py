"""Reading checkpoints without running code that they contain."""

from __future__ import annotations

import pickle
import sys
import types

import numpy as np
import pytest
import torch

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.mmdet.convert import convert
from tests.helpers.calibration import calibrate
from tests.helpers.mmdet_reference import MMDetMaskRCNN

NAMES = ("cat", "dog", "owl", "cow")


def reference(style, **options):
    torch.manual_seed(0)
    model = MMDetMaskRCNN(len(NAMES), style, **options)
    heads, rpn = model.roi_head, model.rpn_head
    return calibrate(
        model,
        lambda shown: [model.pyramid(torch.from_numpy(image).permute(2, 0, 1)[None].float() - 110) for image in shown],
        objectness=rpn.rpn_cls,
        deltas=rpn.rpn_reg,
        scores=heads.bbox_head.fc_cls,
        box_deltas=heads.bbox_head.fc_reg,
        mask_logits=heads.mask_head.conv_logits,
    )


@pytest.fixture(scope="module")
def caffe():
    return reference("caffe")


def tiny_state():
    """All keys of a ResNet-50 model, in almost no memory."""
    with torch.device("meta"):
        model = MMDetMaskRCNN(len(NAMES), "pytorch")
    return {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}


class HistoryBuffer:
    """As mmengine's: its state holds methods of itself, which are pickled as a call of getattr."""

    ran = False

    def __init__(self):
        self.values = np.arange(3.0)
        self.methods = {"mean": HistoryBuffer.mean}

    def mean(self):
        return self.values.mean()

    def __setstate__(self, state):
        HistoryBuffer.ran = True


@pytest.fixture
def mmengine(monkeypatch):
    """A module of that name that has the class, while the checkpoint is written."""
    module = types.ModuleType("mmengine.logging")
    module.HistoryBuffer = HistoryBuffer
    monkeypatch.setattr(HistoryBuffer, "__module__", "mmengine.logging")
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(HistoryBuffer, "ran", False)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_run_s_history_is_passed_over_without_running_it(mmengine, zipped, tmp_path):
    content = {"state_dict": tiny_state(), "message_hub": {"log": HistoryBuffer()}, "meta": {"CLASSES": NAMES}}
    torch.save(content, tmp_path / "run.pth", _use_new_zipfile_serialization=zipped)
    assert convert(tmp_path / "run.pth", style="caffe").classes == list(NAMES)
    assert not HistoryBuffer.ran


class Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("save", [torch.save, lambda obj, file: file.write_bytes(pickle.dumps(obj))])
def test_nothing_of_a_malicious_file_runs(save, tmp_path):
    save(
        {"state_dict": tiny_state() if save is torch.save else {}, "meta": Evil(tmp_path / "ran")},
        tmp_path / "evil.pth",
    )
    with pytest.raises(InputError, match=r"would run (io|_io)\.open while it is read") as caught:
        convert(tmp_path / "evil.pth", style="caffe")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_stubs_cannot_be_used_to_reach_anything(tmp_path):
    """The name `getattr` is accepted, but its stub returns nothing."""
    code = (
        b"\x80\x02}(X\x0a\x00\x00\x00state_dict}X\x01\x00\x00\x00x"
        b"c__builtin__\ngetattr\nc__builtin__\ngetattr\nX\x08\x00\x00\x00__self__\x86Ru."
    )
    (tmp_path / "evil.pkl").write_bytes(code)
    with pytest.raises(InputError):
        convert(tmp_path / "evil.pkl", style="caffe")
