"""Damaged files are found, and reading runs no code of a file."""

import collections
import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext.common.tensor_files import DamagedFileError, read
from maskrcnn_ext.errors import InputError
from tests.helpers.checkpoint_contents import checkpoint, equal, one_line


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a checkpoint."""
    path = tmp_path_factory.mktemp("whole") / "a.pth"
    torch.save(checkpoint(), path)
    return path.read_bytes()


@pytest.mark.parametrize("old_format", [False, True])
def test_truncation_at_any_length_is_found(tmp_path, whole, old_format):
    path = tmp_path / "a.pth"
    if old_format:
        torch.save(checkpoint(), path, _use_new_zipfile_serialization=False)
        assert equal(read(path), checkpoint())
        whole = path.read_bytes()
    lengths = {*range(0, len(whole), 211), *range(1, 40), *(len(whole) - rest for rest in range(1, 90))}
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        # A name that is cut short in the old format may be that of a program.
        with pytest.raises(InputError if old_format else DamagedFileError, match=r"a\.pth: ") as error:
            read(path)
        one_line(error)


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path, whole):
    path = tmp_path / "a.pth"
    places = random.Random(0).sample(range(8 * len(whole)), 400)
    found = 0
    for place in places:
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            value = read(path)
        except InputError as error:
            found += "\n" not in str(error)
        else:
            # The padding and time stamps of the archive.
            assert equal(value, checkpoint())
    assert found > 150


def test_every_bit_of_a_weight_is_checked(tmp_path, whole):
    path = tmp_path / "a.pth"
    weight = checkpoint()["model"]["layer3.weight"].numpy().tobytes()
    start = whole.index(weight)
    for offset in random.Random(0).sample(range(len(weight)), 40):
        content = bytearray(whole)
        content[start + offset] ^= 1
        path.write_bytes(content)
        assert equal(torch.load(path, weights_only=True)["iteration"], 4), "torch itself does not look"
        with pytest.raises(DamagedFileError, match=r"checksum of .* is wrong"):
            read(path)


def archive_of_text(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("<html>404 not found</html>"), "neither a file of torch nor a pickle"),
        (lambda path: path.write_text('{"model": 1}'), "neither a file of torch nor a pickle"),
        (archive_of_text, "truncated or corrupt"),
    ],
)
def test_files_of_another_kind(tmp_path, make, message):
    path = tmp_path / "a.pth"
    make(path)
    with pytest.raises(DamagedFileError, match=rf"a\.pth: {message}") as error:
        read(path)
    one_line(error)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"a\.pth: cannot be read \(No such file or directory\)"):
        read(tmp_path / "a.pth")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95"]))
def test_noise_is_an_error_in_one_line(tmp_path_factory, noise, head):
    path = tmp_path_factory.getbasetemp() / "noise.pth"
    path.write_bytes(head + noise)
    try:
        read(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017, noise may be a small pickle as well


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def torch_file(obj, path):
    torch.save(obj, path)


def old_torch_file(obj, path):
    torch.save(obj, path, _use_new_zipfile_serialization=False)


def pickle_file(obj, path):
    path.write_bytes(pickle.dumps(obj))


@pytest.mark.parametrize("save", [torch_file, old_torch_file, pickle_file])
def test_a_program_in_a_file_does_not_run_unless_allowed(tmp_path, save):
    path, mark = tmp_path / "a.pth", tmp_path / "ran"
    save({"model": {}, "extra": Malicious(f"touch {mark}")}, path)
    with pytest.raises(InputError, match=r"posix\.system.*train\.loading\.allow_pickle=true") as error:
        read(path)
    one_line(error)
    assert not isinstance(error.value, DamagedFileError)
    assert not mark.exists()
    assert read(path, allow_pickle=True)["model"] == {}
    assert mark.exists()


@pytest.mark.parametrize(
    "evil",
    [
        pytest.param(b"cbuiltins\neval\n(S'1+1'\ntR.", id="eval"),
        pytest.param(b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.", id="getattr"),
        pytest.param(b"cnumpy.core.multiarray\nload\n.", id="another name of a known module"),
        pytest.param(b"c_codecs\nencode\n(S'x'\nS'bz2'\ntR.", id="another codec"),
        pytest.param(b"cnumpy\nndarray.tofile\n.", id="an attribute of a known class"),
    ],
)
def test_pickles_know_data_only(tmp_path, evil):
    path = tmp_path / "a.pkl"
    path.write_bytes(evil)
    with pytest.raises(InputError, match="wants to run"):
        read(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_pickles_of_arrays_and_containers(tmp_path, protocol):
    data = {
        "blobs": {"conv1_w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asfortranarray(np.eye(3))},
        "cfg": "MODEL: x",
        "more": [np.float64(2.5), np.int64(3), (1, 2), {4}, b"bytes", b"", None, True, frozenset([1]), 1 + 2j],
        "ordered": collections.OrderedDict(a=1),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    found = read(path)
    assert found["cfg"] == data["cfg"]
    assert found["more"] == data["more"]
    assert found["ordered"] == data["ordered"]
    for name, array in data["blobs"].items():
        assert found["blobs"][name].dtype == array.dtype
        assert np.array_equal(found["blobs"][name], array)


def test_pickles_of_python_2(tmp_path):
    # What cPickle of Python 2 writes of {"a": numpy.float32([1, 2])}: strings of bytes, and numpy 1's names.
    path = tmp_path / "a.pkl"
    path.write_bytes(
        b"(dp1\nS'a'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntp5\nS'b'\np6\ntp7\nRp8\n"
        b"(I1\n(I2\ntp9\ncnumpy\ndtype\np10\n(S'f4'\np11\nI0\nI1\ntp12\nRp13\n(I3\nS'<'\np14\nNNNI-1\nI-1\nI0\ntp15\nbI00\n"
        b"S'\\x00\\x00\\x80?\\x00\\x00\\x00@'\np16\ntp17\nbs."
    )
    assert np.array_equal(read(path)["a"], np.array([1, 2], dtype=np.float32))


@pytest.mark.parametrize("save", [torch_file, old_torch_file])
def test_numbers_of_numpy_in_files_of_torch_are_data(tmp_path, save):
    path = tmp_path / "a.pth"
    allowed = set(torch.serialization.get_safe_globals())
    save({"best": np.float64(0.25), "counts": np.arange(3), "small": np.float32(2)}, path)
    if save is old_torch_file:  # as numpy 1 has written them
        path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))
    found = read(path)
    assert found["best"] == 0.25
    assert np.array_equal(found["counts"], np.arange(3))
    assert set(torch.serialization.get_safe_globals()) == allowed, "nothing stays allowed"
