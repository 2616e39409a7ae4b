import json

import pytest
import torch

from fertool.artifact.header import read_spec
from fertool.models import create, load_model, save_model
from fertool.spec import InputSpec

DATA = ("--data", "synth:210")
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def network(path, width, classes=CLASSES, size=32):
    args = {"width_mult": width}
    torch.manual_seed(0)
    spec, module = create("micro_expnet", args, InputSpec(size=size), classes)
    # Statistics of activations, without which all images have the same logits.
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        module.train()(torch.randn(64, 1, size, size))
    save_model(path, spec, module.eval())
    return path


@pytest.fixture
def small(tmp_path):
    return network(tmp_path / "small.pt", 0.25)


@pytest.fixture
def large(tmp_path):
    return network(tmp_path / "large.pt", 0.5)


def test_two_models_of_any_arithmetic_become_one_file(fertool, tmp_path, small, large):
    integer, both, exported = (tmp_path / name for name in ("i.pt", "b.pt", "b.onnx"))
    code, _, err = fertool(
        "quantize", small, "-o", integer, *DATA, "--calibration-images", 56, "--no-bench"
    )
    assert code == 0, err
    code, out, err = fertool("cascade", integer, large, "-o", both, *DATA, "--share", 0.4, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["gates"]["kind"] == "cascade"
    assert made["gates"]["shares"][0] == pytest.approx(0.4, abs=0.03)
    assert made["gates"]["routing"]["cross_fitted"]
    expected = read_spec(small).macs + made["gates"]["shares"][0] * read_spec(large).macs
    assert made["macs"] == pytest.approx(expected, rel=1e-3)
    assert made["params"] == read_spec(small).params + read_spec(large).params
    assert all(name.startswith("networks.1.") for name in made["quant"]["weights"])
    step = made["provenance"][-1]
    assert step["inputs"]["first"] == read_spec(integer).digest
    assert step["inputs"]["second"] == read_spec(large).digest
    assert "at random" in err

    spec, module = load_model(both)
    assert spec.digest == made["digest"]
    assert module.thresholds == tuple(made["gates"]["thresholds"])
    assert fertool("export", both, "-o", exported)[0] == 0
    code, out, _ = fertool("eval", both, exported, *DATA, "--json")
    assert code == 0
    first, second = json.loads(out)["results"]
    assert first["accuracy"] == pytest.approx(second["accuracy"], abs=0.1)
    code, _, err = fertool("cascade", both, large, *DATA)
    assert code == 1
    assert "cannot be part of a cascade" in err


def test_models_that_do_not_fit_are_refused(fertool, tmp_path, small, large):
    others = {
        "classes": network(tmp_path / "c.pt", 0.5, classes=CLASSES[::-1]),
        "input": network(tmp_path / "s.pt", 0.5, size=48),
    }
    for what, other in others.items():
        code, _, err = fertool("cascade", small, other, "-o", tmp_path / "no.pt", *DATA)
        assert code == 1
        assert f"their {what} differ" in err
    code, _, err = fertool("cascade", large, small, "-o", tmp_path / "no.pt", *DATA)
    assert code == 1
    assert "the smaller model first" in err
    code, _, err = fertool("cascade", small, large, "-o", small, *DATA)
    assert code != 0
    code, _, err = fertool("cascade", small, large, *DATA, "--share", 1)
    assert code == 2
    assert "--share" in err
    assert not (tmp_path / "no.pt").exists()
