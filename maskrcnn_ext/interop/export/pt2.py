"""Opens files of ``torch.export`` without running code in them.

``torch.export.load`` runs code of a file in several ways: it unpickles tensors and constants, evaluates symbolic expressions and
guards as Python, finds operators by any path below ``torch`` (also ``torch.os.system``), loads compiled libraries, and writes names
into the source of the program. Here every record is checked first: pickles hold tensors only, expressions are arithmetic, operators
are of ``aten`` and torchvision, and names are identifiers.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError

# Records of torch.export.save, below the name of the archive; the second line is of torch before 2.8.
_RECORDS = re.compile(
    r"(?:[^/]+/)?(?:models/model\.json|data/(?:weights/(?:weight_\d+|model_weights_config\.json)"
    r"|constants/(?:tensor_\d+|model_constants_config\.json)|sample_inputs/model\.pt)|archive_format|archive_version|byteorder|\.data/\w+"
    r"|version|serialized_(?:exported_program\.json|(?:state_dict|constants|example_inputs)\.pt))"
)
_NAME = re.compile(r"[\w.-]*")
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten(?!\.from_file)|prims|torchvision)\.\w+(?:\.\w+)?|torch\.sym_\w+|math\.(?:ceil|floor|trunc|sqrt|log2|pow)"
    r"|_operator\.(?:add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|pow|sub|truediv)"
)
# Text that is shown or passed to operators, but never run.
_FREE_TEXT = ("as_string", "as_float", "torch_version")
_SPECS = ("in_spec", "out_spec")
_SPEC_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_EXPRESSIONS = ("expr_str", "guards_code")
# No quotes of the other kind, comments or line ends, which could end the source that an expression is written into.
_EXPRESSION_TEXT = re.compile(r"[\w +\-*/%()\[\],.<>=!&|~']*")
_SYMPY = re.compile(
    r"Add|And|CeilDiv|CeilToInt|CleanDiv|Eq|Equality|Float|FloatPow|FloatTrueDiv|FloorDiv|FloorToInt|Ge|GreaterThan|Gt|Identity|IntTrueDiv"
    r"|Integer|LShift|Le|LessThan|Lt|Max|Min|Mod|ModularIndexing|Mul|Ne|Not|Or|Piecewise|Pow|PowByNatural|PythonMod|RShift|Rational"
    r"|RoundDecimal|RoundToInt|StrictGreaterThan|StrictLessThan|Symbol|ToFloat|TruncToFloat|TruncToInt|Unequality|Where|ceiling|floor"
)
_METHODS = re.compile(r"size|stride|storage_offset|sym_\w+|ceil|floor|trunc|sqrt")
_TAKE_TEXT = ("Symbol", "Float", "Integer", "Rational")
_LARGEST_POWER = 64
_NODES = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Constant,
    ast.Name,
    ast.Subscript,
    ast.Call,
    ast.Attribute,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
    ast.expr_context,
)


def load_program(file: Path) -> Any:
    """Returns the module of a ``.pt2`` file.

    Raises:
        InputError: the file is damaged, or it contains something that can run any code.
    """
    import torch

    archive = _checked(file)
    logger = logging.getLogger("torch.export")  # it logs the traceback of the error that it raises
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return torch.export.load(archive).module()
    finally:
        logger.setLevel(level)


def _checked(file: Path) -> io.BytesIO:
    """Returns the records of an archive as a new archive, so that torch reads only the checked records."""
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as target:
            for entry in archive.infolist():
                if not _RECORDS.fullmatch(entry.filename) or entry.filename in target.NameToInfo:
                    raise _refuse(file, f"the record {entry.filename!r:.100}")
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise _refuse(file, f"{entry.filename}, which is compressed")
                content = archive.read(entry)
                _check(file, entry.filename, content)
                target.writestr(entry.filename, content)
            for name in _pickled(archive):
                _check_pickle(file, name, archive.read(name))
    except InputError:
        raise
    except Exception as error:  # damaged bytes raise errors of many types
        raise InputError(f"{file}: PyTorch cannot read it ({one_line(error)})") from error
    copy.seek(0)
    return copy


def _pickled(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yields the weights and constants that torch unpickles. The others are plain bytes."""
    for name in archive.namelist():
        if name.endswith("_config.json"):
            for entry in json.loads(archive.read(name))["config"].values():
                if entry["use_pickle"]:
                    yield f"{name.rpartition('/')[0]}/{entry['path_name']}"


def _check(file: Path, name: str, content: bytes) -> None:
    if name.endswith(".pt"):
        _check_pickle(file, name, content)
    elif name.endswith(".json"):
        for key, text in set(_texts(json.loads(content), "")):
            _check_text(file, key, text)


def _check_pickle(file: Path, name: str, content: bytes) -> None:
    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # damaged bytes raise errors of many types
        raise _refuse(file, f"{name}, a pickle of other objects than tensors ({one_line(error):.100})") from error


def _texts(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yields each text with the key of the mapping that holds it, and each key as a name."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield "", name
            if name != "metadata":  # where a node came from
                yield from _texts(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, key)
    elif isinstance(tree, str):
        yield key, tree


def _check_text(file: Path, key: str, text: str) -> None:
    if key in _FREE_TEXT:
        return
    if key in _SPECS:
        good = _is_spec(text)
    elif key in _EXPRESSIONS:
        good = _is_arithmetic(text)
    elif key in ("target", "as_operator"):
        good = _OPERATOR.fullmatch(text) is not None
    else:
        good = _NAME.fullmatch(text) is not None
    if not good:
        raise _refuse(file, f"{key or 'the name'} {text!r:.100}")


def _is_spec(text: str) -> bool:
    """Returns whether a text describes nested tuples, lists and dicts whose keys are names."""

    def check(spec: Any) -> bool:
        context = json.loads(spec["context"]) if spec["context"] else None
        names = [name for _, name in _texts(context, "")]
        return (
            spec["type"] in _SPEC_TYPES and all(map(_NAME.fullmatch, names)) and all(map(check, spec["children_spec"]))
        )

    try:
        return not text or check(json.loads(text)[1])
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _is_arithmetic(text: str) -> bool:
    """Returns whether an expression only computes with numbers, symbols and sizes of inputs, and with few digits."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        return False
    nodes = list(ast.walk(tree))
    texts = {id(node.slice) for node in nodes if isinstance(node, ast.Subscript)}
    texts |= {
        id(node.args[0]) for node in nodes if isinstance(node, ast.Call) and _called(node) in _TAKE_TEXT and node.args
    }
    return _EXPRESSION_TEXT.fullmatch(text) is not None and all(
        isinstance(node, _NODES)
        and (not isinstance(node, ast.Attribute) or _METHODS.fullmatch(node.attr) or node.attr in ("inf", "nan"))
        and (
            not isinstance(node, ast.Call)
            or (_SYMPY if isinstance(node.func, ast.Name) else _METHODS).fullmatch(_called(node))
        )
        and (not isinstance(node, ast.Constant) or id(node) in texts or isinstance(node.value, int | float))
        and _is_small(node)
        for node in nodes
    )


def _called(node: ast.AST) -> str:
    """Returns the name of the function or method that a node calls, or ""."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _is_power(node: ast.AST) -> bool:
    operator = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift)
    return operator or _called(node) in ("Pow", "FloatPow", "PowByNatural", "LShift")


def _is_small(node: ast.AST) -> bool:
    """Returns whether a node is no large constant and no power that could have millions of digits."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value < 2**128
    inner = [part for part in ast.walk(node) if part is not node] if _is_power(node) else []
    return not any(_is_power(part) for part in inner) and all(
        abs(part.value) <= _LARGEST_POWER
        for part in ast.walk(_exponent(node))
        if isinstance(part, ast.Constant) and isinstance(part.value, int | float)
    )


def _exponent(node: ast.AST) -> ast.AST:
    """Returns the exponent of a power; an empty node for others."""
    if not _is_power(node):
        return ast.Pass()
    return node.right if isinstance(node, ast.BinOp) else ast.Tuple(elts=node.args[1:])  # type: ignore[attr-defined]


def _refuse(file: Path, what: str) -> InputError:
    return InputError(f"{file}: contains {what}, which can run any program: export the model again with this package")
