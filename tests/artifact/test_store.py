import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from graphs import toy_graph

from fertool.artifact import store
from fertool.artifact.header import MEMBER, read_spec
from fertool.errors import FertoolError
from fertool.spec import InputSpec, Metrics, ProvenanceStep, QuantSpec, Spec, WeightQuant

SPEC = Spec(
    arch="toy",
    arch_args={"stem_stride": 1},
    graph=toy_graph(),
    input=InputSpec(),
    classes=("angry", "happy"),
    params=12,
    macs=34,
    quant=QuantSpec(
        weights={"conv": WeightQuant(bits=(8, 8, 4), limit=64)}, activations={"conv": 8}
    ),
    metrics=Metrics("val", 10, 0.5, (0.2, 0.8), 0.4),
    provenance=(ProvenanceStep("train-teacher", {"epochs": 3}, {"data": "ab"}, {"torch": "2"}, 7),),
)


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(3, 1, 3, 3, generator=generator),
        "bn.num_batches_tracked": torch.tensor(5),
        "packed": torch.arange(12, dtype=torch.int8).reshape(3, 4).t(),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.pt"
    store.save(path, SPEC, tensors())
    return path


def test_spec_and_tensors_come_back(saved):
    artifact = store.load(saved)
    assert replace(artifact.spec, digest="") == SPEC
    assert len(artifact.spec.digest) == 64
    for name, tensor in tensors().items():
        assert artifact.state_dict[name].dtype == tensor.dtype
        assert torch.equal(artifact.state_dict[name], tensor)


def test_same_content_gives_the_same_bytes_under_any_name_and_after_a_round_trip(saved, tmp_path):
    artifact = store.load(saved)
    store.save(
        tmp_path / "other name.pt", artifact.spec, dict(reversed(artifact.state_dict.items()))
    )
    assert (tmp_path / "other name.pt").read_bytes() == saved.read_bytes()


def test_any_torch_opens_it_without_fertool(saved):
    for mapped in (False, True):
        content = torch.load(saved, weights_only=True, mmap=mapped)
        assert torch.equal(content["state_dict"]["packed"], tensors()["packed"])


def test_a_view_does_not_drag_its_storage_along(tmp_path):
    store.save(tmp_path / "a.pt", SPEC, {"w": torch.zeros(1_000_000)[:4]})
    assert (tmp_path / "a.pt").stat().st_size < 10_000


def test_the_header_is_read_without_torch(saved):
    code = (
        "import sys, pathlib; from fertool.artifact.header import read_spec; "
        "print(read_spec(pathlib.Path(sys.argv[1])).arch); assert 'torch' not in sys.modules"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, saved], capture_output=True, text=True, check=True
    ).stdout
    assert output == "toy\n"


def test_every_flipped_bit_of_a_tensor_or_the_header_is_noticed(saved, tmp_path):
    content = saved.read_bytes()
    weight = tensors()["conv.weight"].numpy().tobytes()
    places = [
        content.index(weight),
        content.index(weight) + len(weight) - 1,
        content.rindex(b'"graph":"') + 20,
    ]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "bad.pt").write_bytes(damaged)
        with pytest.raises(FertoolError, match=r"bad\.pt: (damaged|not a fertool)"):
            store.load(tmp_path / "bad.pt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, tmp_path, share):
    content = saved.read_bytes()
    (tmp_path / "short.pt").write_bytes(content[: int(len(content) * share)])
    for read in (store.load, read_spec):
        with pytest.raises(FertoolError, match=r"short\.pt: not a fertool model file"):
            read(tmp_path / "short.pt")


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    plain, zipped = tmp_path / "plain.pt", tmp_path / "zipped.pt"
    plain.write_bytes(pickle.dumps(Attack()))
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "spec": Attack()}, buffer)
    zipped.write_bytes(buffer.getvalue())
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(MEMBER, SPEC.to_json())
    for path in (plain, zipped):
        with pytest.raises(FertoolError, match="not a fertool model file"):
            store.load(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.pt", None),
        ("text.pt", b"hello"),
        ("missing.onnx", None),
        ("text.onnx", b"hello world, no model"),
    ],
)
def test_what_is_no_model_file_is_one_clear_error(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FertoolError, match=rf"{name}: (no such file|not a)") as caught:
        read_spec(path)
    assert caught.value.hint


def test_what_is_no_tensor_is_one_clear_error(tmp_path):
    path, text = tmp_path / "model.pt", json.dumps({"digest": "0" * 64})
    torch.save({"state_dict": {"conv.weight": 3}, "spec": text}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, text)
    with pytest.raises(FertoolError, match="not a fertool model file"):
        store.load(path)


def test_a_newer_format_is_refused_by_its_number(saved, tmp_path):
    _, content = store.pack({**json.loads(SPEC.to_json()), "format": 3}, tensors())
    (tmp_path / "new.pt").write_bytes(content)
    for read in (store.load, read_spec):
        with pytest.raises(
            FertoolError, match=r"header format 3, this fertool reads format 2"
        ) as caught:
            read(tmp_path / "new.pt")
        assert caught.value.hint == "install a newer fertool"


@pytest.mark.parametrize(
    ("provenance", "hint"),
    [
        (
            [{"command": "train-teacher"}, {"command": "prune"}],
            "make it again with this version's fertool prune",
        ),
        ([{"command": "rm -r"}], "make it again with this version"),
        ([], "make it again with this version"),
        ("nonsense", "make it again with this version"),
        ([3], "make it again with this version"),
    ],
)
def test_a_file_of_widths_says_how_to_make_it_again(tmp_path, provenance, hint):
    header = json.loads(SPEC.to_json())
    del header["graph"]
    _, content = store.pack(
        {**header, "format": 1, "widths": {"stem": 3}, "provenance": provenance}, tensors()
    )
    (tmp_path / "old.pt").write_bytes(content)
    for read in (store.load, read_spec):
        with pytest.raises(
            FertoolError, match=r"old\.pt: header format 1, this fertool reads format 2"
        ) as caught:
            read(tmp_path / "old.pt")
        assert caught.value.hint == hint


def test_a_header_with_a_foreign_key_names_it():
    text = SPEC.to_json().replace('"arch":', '"surprise":1,"arch":')
    with pytest.raises(FertoolError, match="keys missing or unknown: surprise"):
        Spec.from_json(text, "x.pt")
