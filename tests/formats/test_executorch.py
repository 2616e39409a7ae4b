import pytest
from converted import require_bench, require_digest, require_refusal, require_same_logits

pytest.importorskip("executorch", reason="the extra executorch is not installed")


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_files_carry_the_header_and_give_the_logits_of_torch(networks, images, tmp_path, kind):
    path = require_same_logits("executorch", networks[kind], images, tmp_path)
    require_bench(path, "executorch")
    require_digest(path)


def test_dynamic_networks_are_refused(networks, tmp_path):
    require_refusal("executorch", networks["dynamic"], tmp_path, "no choice between networks")
