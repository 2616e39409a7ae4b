"""Damaged programs and ONNX files: each is imported, or refused by one error; none ends in a
traceback.

FERTOOL_DAMAGE_SEED and FERTOOL_DAMAGED_FILES draw others, and more.
"""

import copy
import json
import os
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import onnx
import pytest
import torch
from importing.hand_written import build

from fertool.config.importing import ImportConfig
from fertool.errors import FertoolError
from fertool.importing import import_network

SEED = int(os.environ.get("FERTOOL_DAMAGE_SEED", "17"))
FILES = int(os.environ.get("FERTOOL_DAMAGED_FILES", "60"))
SIZE = 32
PLAIN = ImportConfig(mean=(0.0,), std=(1.0,))

_STRANGE: tuple[Any, ...] = (
    None,
    -1,
    0,
    10**9,
    -(10**18),
    1.5,
    True,
    "x",
    [],
    {},
    ["x"],
    {"as_int": 5},
)
_STRANGE += ("torch.ops.aten.add.Tensor", "as_tensor", {"as_name": "q"})
_OPERATORS = (
    "Conv",
    "Relu",
    "Loop",
    "If",
    "Reshape",
    "Gemm",
    "Einsum",
    "Concat",
    "Split",
    "QLinearConv",
    "",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undamaged files: an exported program and an ONNX file."""
    folder = tmp_path_factory.mktemp("whole")
    module, images = build(), torch.randn(2, 3, SIZE, SIZE)
    free = ({0: torch.export.Dim("batch", min=1, max=64)},)
    torch.export.save(
        torch.export.export(module, (images,), dynamic_shapes=free), folder / "net.pt2"
    )
    axes = {"images": {0: "batch"}}
    torch.onnx.export(
        module,
        (images,),
        folder / "net.onnx",
        dynamo=False,
        input_names=["images"],
        dynamic_axes=axes,
    )
    return folder


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [place]
    entries = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, entry in entries:
        found += _places(entry, (*place, key))
    return found


def _edit(value: Any, draw: Random) -> None:
    """Change, remove or repeat one entry of a JSON value."""
    places = _places(value)[1:]
    if not places:
        return
    *parents, key = draw.choice(places)
    holder = value
    for parent in parents:
        holder = holder[parent]
    action = draw.choice(["change", "change", "remove", "repeat"])
    if action == "remove" and isinstance(holder, dict):
        del holder[key]
    elif action == "repeat" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[key] = draw.choice(_STRANGE)


def _edited(content: bytes, member: str, draw: Random, path: Any) -> None:
    source = zipfile.ZipFile(content)  # type: ignore[call-overload]
    with zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(member):
                parsed = json.loads(data)
                for _ in range(draw.choice([1, 1, 2])):
                    _edit(parsed.get("graph_module", parsed), draw)
                data = json.dumps(parsed).encode()
            archive.writestr(name, data)


def _program_graph(whole, folder, draw):
    _edited(whole / "net.pt2", "models/model.json", draw, folder / "bad.pt2")
    return folder / "bad.pt2"


def _program_table(whole, folder, draw):
    _edited(whole / "net.pt2", "model_weights_config.json", draw, folder / "bad.pt2")
    return folder / "bad.pt2"


def _bytes(whole, folder, draw):
    suffix = draw.choice([".pt2", ".onnx"])
    content = bytearray((whole / f"net{suffix}").read_bytes())
    for _ in range(draw.choice([1, 3, 20])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    path = folder / f"bad{suffix}"
    path.write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
    return path


def _onnx_node(whole, folder, draw):
    model = onnx.load(whole / "net.onnx")
    node = draw.choice(model.graph.node)
    action = draw.choice(["operator", "argument", "input", "constant"])
    if action == "operator":
        node.op_type = draw.choice(_OPERATORS)
    elif action == "argument" and node.attribute:
        attribute = draw.choice(node.attribute)
        if attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(
                [-1, 0, 10**9, -(10**15)]
            )
        else:
            attribute.i = draw.choice([-1, 0, 10**9])
    elif action == "input" and node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(["images", "nothing", ""])
    else:
        tensor = draw.choice([tensor for tensor in model.graph.initializer if tensor.dims])
        tensor.dims[0] = draw.choice([0, -1, 10**9, 3])
    onnx.save(model, folder / "bad.onnx")
    return folder / "bad.onnx"


_DAMAGES: tuple[Callable[..., Any], ...] = (_program_graph, _program_table, _bytes, _onnx_node)


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_file_is_refused_in_one_line(whole, tmp_path, damage):
    draw = Random(f"{SEED} {damage.__name__}")
    errors = []
    for _ in range(FILES):
        path = damage(whole, tmp_path, draw)
        try:
            import_network(str(path), PLAIN)
        except FertoolError as error:
            errors.append(error.message)
    assert len(errors) > FILES // 4
    assert [message for message in errors if "\n" in message] == []
