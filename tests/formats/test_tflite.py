import pytest
from converted import require_bench, require_digest, require_refusal, require_same_logits

pytest.importorskip("litert_torch", reason="the extra litert is not installed")


def test_a_file_carries_the_header_and_gives_the_logits_of_torch(networks, images, tmp_path):
    path = require_same_logits("tflite", networks["float"], images, tmp_path)
    require_bench(path, "tflite")
    require_digest(path)


def test_quantized_and_dynamic_networks_are_refused(networks, tmp_path):
    require_refusal("tflite", networks["int8"], tmp_path, "holds floats only")
    require_refusal("tflite", networks["dynamic"], tmp_path, "no choice between networks")
