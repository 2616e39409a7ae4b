import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from fertool import registry
from fertool.data.dataset import FaceDataset

sys.path.append(
    str(Path(__file__).parent)
)  # for `mutations`: with importlib's import mode no test folder is there


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks lose more by handing work between cores than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERTOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fertool(capsys):
    """Run one command line; returns (exit code, stdout, stderr)."""
    from fertool.cli.app import run

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        if code == 0 and "--json" in arguments:
            _require_json_of_command([str(argument) for argument in arguments], captured.out)
        return code, captured.out, captured.err

    return call


def _require_json_of_command(arguments, text):
    """Fail unless what a command prints is, key by key, what the type of its result says."""
    from fertool.results.schema import RESULTS
    from fertool.strict_json import as_type

    printed = json.loads(text)
    name = "-".join(arguments[:2]) if arguments[0] == "data" else arguments[0]
    if "--bundle" in arguments:
        name += "-bundle"
    if "--dry-run" in arguments:
        name += "-dry-run"
    if printed.get("kind") == "logits":
        name = "show-logits"
    # In Python `import` cannot be the name of a field.
    fields = {"import_" if key == "import" else key: value for key, value in printed.items()}
    result = as_type(fields, RESULTS[name])
    assert json.loads(json.dumps(result.as_dict())) == printed


@pytest.fixture
def faces():
    """Make data of one split: a bright bar at the top, in the middle or at the bottom,
    under noise.
    """

    def make(n, split="train", seed=0):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 3
        images = torch.randint(0, 160, (n, 1, 12, 12), generator=generator)
        for position in range(3):
            images[labels == position, :, 4 * position : 4 * position + 3] += 90
        return FaceDataset(
            images.to(torch.uint8), labels, ("happy", "neutral", "sad"), split, digest="source"
        )

    return make


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of one module whose class `Member` is an entry point of a group."""
    loaded = []

    def install(group, name, source):
        package = f"others_{len(loaded)}_{group.rpartition('.')[2]}"
        (tmp_path / f"{package}.py").write_text(source)
        metadata = tmp_path / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {package}:Member\n")
        loaded.append(package)
        importlib.invalidate_caches()
        registry.installed_members.cache_clear()

    monkeypatch.syspath_prepend(tmp_path)
    for members in vars(registry).values():
        if isinstance(members, registry.Registry):
            monkeypatch.setattr(members, "_loaded", dict(members._loaded))
    yield install
    for package in loaded:
        sys.modules.pop(package, None)
    registry.installed_members.cache_clear()
