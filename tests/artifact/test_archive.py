"""Files that would unpack to more than they are; made from the format of the day."""

import io
import json
import pickle
import zipfile

import pytest
import torch
from graphs import toy_graph

from fertool.artifact import store
from fertool.artifact.header import MEMBER, read_spec
from fertool.errors import FertoolError
from fertool.models.initial_weights import load_initial_weights
from fertool.spec import InputSpec, Spec
from fertool.strict_json import WrongContentError

SPEC = Spec(
    arch="toy", arch_args={}, graph=toy_graph(), input=InputSpec(), classes=("angry", "happy")
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.pt"
    store.save(path, SPEC, {"w": torch.arange(2000.0)})
    return path


def rewritten(path, change=None, *, deflated=(), comment=b"", before=b"", twice=""):
    """Pack a zip anew: members changed, deflated or doubled,
    bytes before it and a comment behind it.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = {
        name: (change or (lambda _, content: content))(name, content)
        for name, content in members.items()
    }
    buffer = io.BytesIO()
    buffer.write(before)
    with zipfile.ZipFile(buffer, "a" if before else "w") as archive:
        for name, content in members.items():
            deflate = any(part in name for part in deflated)
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
            if twice and twice in name:
                archive.writestr(name, content)
        archive.comment = comment
    path.write_bytes(buffer.getvalue())


def blanks(part):
    return lambda name, content: content + b" " * (20 << 20) if part in name else content


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"deflated": ("data.pkl",)}, "'archive/data.pkl' is compressed"),
        ({"deflated": ("data/",)}, "is compressed"),
        ({"change": blanks("fertool.json"), "deflated": ("fertool.json",)}, "is compressed"),
        ({"change": blanks("fertool.json")}, "fertool.json has"),
        ({"comment": b"PK"}, "before or behind the archive"),
        ({"before": b"x" * 100}, "before or behind the archive"),
        ({"twice": "data.pkl"}, "of the same name"),
    ],
)
def test_packed_and_oversized_members_are_refused_before_they_are_read(saved, how, said):
    rewritten(saved, **how)
    with pytest.raises(FertoolError, match=rf"model\.pt: damaged, .*{said}"):
        store.load(saved)


def test_a_header_that_is_packed_is_refused_without_torch_too(saved):
    rewritten(saved, blanks("fertool.json"), deflated=("fertool.json",))
    with pytest.raises(FertoolError, match="is compressed"):
        read_spec(saved)


class _Enlarged:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "call", [(bytearray, 1 << 40), (torch.Tensor, 1 << 20, 1 << 20)], ids=["bytes", "tensor"]
)
def test_pickles_that_make_large_objects_are_refused(tmp_path, zipped, call):
    path = tmp_path / "big.pt"
    if zipped:
        torch.save({"w": _Enlarged(*call)}, path)
    else:
        path.write_bytes(pickle.dumps({"w": _Enlarged(*call)}, protocol=2))
    for read in (store.load, lambda path: load_initial_weights(torch.nn.Linear(2, 2), path)):
        with pytest.raises(FertoolError, match=r"big\.pt: damaged, its pickle calls"):
            read(path)


def hand_made(path, tensors):
    """Write a model file around tensors that `pack` would make plain."""
    text = json.dumps({**json.loads(SPEC.to_json()), "digest": "0" * 64})
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors, "spec": text}, buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(MEMBER, text)
    path.write_bytes(buffer.getvalue())


ODD = {
    "expanded": lambda: torch.zeros(1).expand(2_000_000_000),
    "overlapping": lambda: torch.arange(100.0).as_strided((90, 11), (1, 1)),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "complex": lambda: torch.zeros(3, dtype=torch.complex64),
    "meta": lambda: torch.zeros(1 << 40, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.quint8),
    "number": lambda: 5,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_not_plain_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "odd.pt"
    torch.save({"conv.weight": ODD[kind]()}, path)
    with pytest.raises(
        FertoolError, match=r"odd\.pt: (conv\.weight is|not a state dict: it holds conv\.weight)"
    ):
        load_initial_weights(torch.nn.Linear(2, 2), path)
    hand_made(path, {"conv.weight": ODD[kind]()})
    with pytest.raises(FertoolError, match=r"odd\.pt: damaged, conv\.weight is"):
        store.load(path)


def test_many_tensors_of_one_storage_are_no_more_than_the_file(tmp_path):
    path, whole = tmp_path / "many.pt", torch.zeros(100_000)
    hand_made(path, {str(k): whole for k in range(50)})
    with pytest.raises(FertoolError, match="more numbers than the file"):
        store.load(path)


def nested(levels, width):
    """Pickle a map whose key is a tuple of tuples.

    Each level names the one below it `width` times.
    """
    below = pickle.BINGET
    parts = [
        pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.EMPTY_TUPLE + pickle.BINPUT + b"\x00"
    ]
    for level in range(levels):
        inside = (below + bytes([level])) * width
        parts.append(pickle.MARK + inside + pickle.TUPLE + pickle.BINPUT + bytes([level + 1]))
    return b"".join([*parts, pickle.NONE, pickle.SETITEM, pickle.STOP])


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (nested(35, 2), "tuples inside each other"),
        (nested(5, 1000), "tuples inside each other"),
        (b"\x80\x02}()" + pickle.TUPLE1 * 200_000 + b"Ns.", "tuples inside each other"),
        (b"\x80\x02(" + pickle.EMPTY_LIST * 3_000_000 + b"t.", "more than 2,000,000 parts"),
    ],
    ids=["doubled", "wide", "deep", "many"],
)
def test_pickles_that_take_for_ever_are_refused(saved, tmp_path, pickled, said):
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickled)
    rewritten(saved, lambda name, content: pickled if name.endswith("data.pkl") else content)
    for path in (saved, plain):
        with pytest.raises(FertoolError, match=said):
            store.load(path)


def test_a_checkpoint_with_tuples_is_read(tmp_path):
    path = tmp_path / "checkpoint.pth"
    groups = [{"betas": (0.9, 0.999), "params": list(range(5000))}] * 3
    torch.save(
        {"optimizer": groups, "shape": torch.zeros(3, 4).shape, "pairs": {(1, (2, 3)): 1}}, path
    )
    assert store.load_plain(path)["pairs"] == {(1, (2, 3)): 1}


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.uint16, torch.uint64], ids=str)
def test_tensors_of_unusual_types_are_refused(kind):
    with pytest.raises(WrongContentError, match="w is of type"):
        store.require_dense({"w": torch.zeros(4).to(kind)})
