import pytest
from converted import require_bench, require_digest, require_refusal, require_same_logits
from settled import settled

from fertool.runtime import open_predictor

for package in ("ncnn", "pnnx"):
    pytest.importorskip(package, reason="the extra ncnn is not installed")


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "nano_resnet"])
def test_files_carry_the_header_and_give_the_logits_of_torch(images, tmp_path, arch):
    spec, module, _ = settled(arch, width_mult=0.25, steps=3)
    path = require_same_logits("ncnn", (spec, module), images, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.param"]
    assert open_predictor(path).logits(images.numpy()).shape == (len(images), 7)
    require_bench(path, "ncnn")
    require_digest(path)


def test_what_pnnx_would_damage_is_refused(networks, tmp_path):
    require_refusal("ncnn", networks["int8"], tmp_path, "holds floats only")
    require_refusal("ncnn", networks["dynamic"], tmp_path, "holds no choice between networks")
