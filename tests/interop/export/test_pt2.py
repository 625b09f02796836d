"""A hostile file of torch.export runs nothing when it is opened."""

import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.export.pt2 import _is_arithmetic, load_program


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("PWNED",)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x * x.shape[0])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The content of a small program by the name of the record, and of the guards."""
    file = tmp_path_factory.mktemp("pt2") / "a.pt2"
    program = torch.export.export(Net(), (torch.ones(4, 3),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def write(path, records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def test_an_honest_program_runs(records, tmp_path):
    program = load_program(write(tmp_path / "a.pt2", records))
    assert program(torch.ones(7, 3)).shape == (7, 2)


def pickled(records):
    weights = next(name for name in records if name.endswith("weight_0"))
    config = weights.replace("weight_0", "model_weights_config.json")
    content = json.loads(records[config])
    for entry in content["config"].values():
        entry["use_pickle"] = True
    return {**records, config: json.dumps(content), weights: pickle.dumps(Runs())}


def sample_inputs(records):
    name = next(name for name in records if name.endswith("sample_inputs/model.pt"))
    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    return {**records, name: buffer.getvalue()}


def edited(change):
    def edit(records):
        name = next(name for name in records if name.endswith("models/model.json"))
        content = json.loads(records[name])
        change(content, content["graph_module"]["graph"])
        return {**records, name: json.dumps(content)}

    return edit


def set_target(target):
    return edited(lambda _, graph: graph["nodes"][0].update(target=target))


def rename_input(_, graph):
    graph["inputs"][0]["as_tensor"]["name"] = "x, y=__import__('os').mkdir('PWNED')"


HOSTILE = {
    "weights": pickled,
    "sample inputs": sample_inputs,
    "operator": set_target("torch.os.mkdir"),
    "operator of files": set_target("torch.ops.aten.from_file.default"),
    "attribute": set_target("_operator.attrgetter"),
    "expression": edited(
        lambda content, _: content["graph_module"].update(
            expression={"expr_str": "__import__('os').mkdir('PWNED')", "hint": None}
        )
    ),
    "guard": edited(lambda content, _: content.update(guards_code=["__import__('os').mkdir('PWNED')"])),
    "name": edited(rename_input),
    "specification": edited(
        lambda content, _: content["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "builtins.dict", "context": "[\\"x=open(1)\\"]", "children_spec": []}]'
        )
    ),
    "library": lambda records: {**records, "a/data/aotinductor/model/a.so": b""},
    "object": lambda records: {**records, "a/data/constants/custom_obj_0": pickle.dumps(Runs())},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_program_is_refused(change, records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"a\.pt2: contains .* which can run any program") as caught:
        load_program(write(tmp_path / "a.pt2", change(dict(records))))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


def test_a_record_that_two_readers_see_differently(records, tmp_path):
    file = write(tmp_path / "a.pt2", records)
    name = next(name for name in records if name.endswith("models/model.json"))
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(name, records[name])
    with pytest.raises(InputError, match="contains the record"):
        load_program(file)
    with pytest.raises(InputError, match="which is compressed"):
        load_program(write(tmp_path / "b.pt2", records, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"[" * 100])
def test_a_broken_file_is_one_line(content, tmp_path):
    (tmp_path / "a.pt2").write_bytes(content)
    with pytest.raises(InputError, match="PyTorch cannot read it"):
        load_program(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(3), CeilToInt(FloatTrueDiv(ToFloat(Symbol('s0', positive=True, integer=True)), Float('4.0', precision=53))))",
        "((31 + L['images'].size()[2]) // 32) != 1",
        "torch.sym_max(1, (31 + L['x'].size()[2]) // 32)*math.ceil(torch.sym_float(s0) / 4.0) < math.inf",
        "s0**2 + 2**(-1)",
        "Pow(Symbol('s0', integer=True), Integer(2))",
    ],
)
def test_expressions_of_torch_are_arithmetic(text):
    assert _is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('PWNED')",
        "S('x')",
        "lambdify(s0, s0)",
        "s0.__class__",
        "Symbol.size.func(s0)",
        "(lambda: 0)()",
        "[x for x in s0]",
        "s0 != 1 # comment",
        's0 != "a"',
        "s0\n",
        "f'{s0}'",
        "'a' * 10",
        "9**9**9",
        "9**9999999",
        "Pow(9, 9999999)",
        "1 << 9999999",
        "(((9**64)**64)**64)",
        "1" * 60,
        "math.ceil.__self__",
        "ceil('exit()')",
        "(",
    ],
)
def test_other_expressions_are_not(text):
    assert not _is_arithmetic(text)
