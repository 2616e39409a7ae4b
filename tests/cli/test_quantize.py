import json
import os

import torch

from fertool import models
from fertool.spec import InputSpec


def test_a_dry_run_prints_the_bits_and_the_size_that_a_real_one_has(fertool, tmp_path):
    torch.manual_seed(0)
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad"))
    model = tmp_path / "m.pt"
    models.save_model(model, spec, module)
    arguments = ("quantize", model, "--data", "synth:70", "--samples", "4")
    code, out, err = fertool(*arguments, "--dry-run", "--json")
    assert code == 0, err
    assert os.listdir(tmp_path) == ["m.pt"]
    planned = json.loads(out)
    code, out, err = fertool(*arguments, "-o", tmp_path / "q.pt", "--json")
    assert code == 0
    change, measured = json.loads(out)["change"], json.loads(out)["change"]["speedup"]
    assert measured == change["latency_s_before"] / change["latency_s"]
    assert f"INT8 is {measured:.2f} x as fast" in err
    assert ("not measurably faster" in err) == (change["speedup_ci95"][0] <= 1)
    written, _ = models.load_model(tmp_path / "q.pt")
    assert set(planned["quant"]["weights"]) == set(written.quant.weights)
    assert planned["size_bytes_before"] == model.stat().st_size
    assert abs(planned["size_bytes"] - (tmp_path / "q.pt").stat().st_size) < 100
    _, out, _ = fertool(*arguments, "--dry-run")
    assert "size" in out
    assert "points" in out


def test_what_processors_without_vnni_answer_is_told(fertool, tmp_path):
    torch.manual_seed(0)
    spec, module = models.create("nano_resnet", {"width_mult": 0.25}, InputSpec(size=32), ("happy", "sad"))
    models.save_model(tmp_path / "m.pt", spec, module)
    arguments = ("quantize", tmp_path / "m.pt", "--data", "synth:70", "--samples", "8", "--dry-run", "--json")
    for flag, told in (("--portable", "with and without VNNI"), ("--full-range", "(emulated)")):
        code, out, err = fertool(*arguments, flag)
        assert code == 0, err
        assert told in err
        assert 0 <= json.loads(out)["change"]["accuracy_without_vnni"] <= 1
