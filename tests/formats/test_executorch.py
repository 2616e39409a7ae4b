from dataclasses import replace

import pytest
from converted import require_bench, require_digest, require_refusal, require_same_logits
from settled import settled

from fertool.config.quantization import QuantizeConfig
from fertool.quant import quantize_model

pytest.importorskip("executorch", reason="the extra executorch is not installed")


def test_a_file_carries_the_header_and_gives_the_logits_of_torch(networks, images, tmp_path):
    path = require_same_logits("executorch", networks["float"], images, tmp_path)
    require_bench(path, "executorch")
    require_digest(path)


def test_a_quantized_network_keeps_its_integers(images, tmp_path):
    spec, module, data = settled("nano_resnet", width_mult=0.25)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    network = (replace(spec, quant=quant), integer)
    require_same_logits("executorch", network, images, tmp_path)


def test_what_the_partitioner_cannot_take_is_one_message(networks, tmp_path):
    require_refusal("executorch", networks["int8"], tmp_path, "ExecuTorch cannot convert")


def test_dynamic_networks_are_refused(networks, tmp_path):
    require_refusal("executorch", networks["dynamic"], tmp_path, "no choice between networks")
