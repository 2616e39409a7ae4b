import pytest
from converted import require_bench, require_refusal, require_same_logits

from fertool.artifact.header import read_spec
from fertool.config.exporting import ExportConfig
from fertool.errors import FertoolError, UsageError
from fertool.formats.format import load_format
from fertool.runtime import open_predictor


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_files_carry_the_header_and_give_the_logits_of_torch(networks, images, tmp_path, kind):
    path = require_same_logits("ptl", networks[kind], images, tmp_path)
    require_bench(path, "torchlite")


def test_dynamic_networks_and_packed_weights_are_refused(networks, tmp_path):
    require_refusal("ptl", networks["dynamic"], tmp_path, "holds no choice between networks")
    with pytest.raises(UsageError, match="``packed=True``"):
        load_format("ptl").write(
            tmp_path / "a.ptl", *networks["int8"], config=ExportConfig(packed=True)
        )


def test_writing_says_that_the_format_is_deprecated(networks, tmp_path):
    notes = []
    load_format("ptl").write(
        tmp_path / "a.ptl", *networks["float"], config=ExportConfig(), on_note=notes.append
    )
    assert "deprecated" in notes[0]


def test_a_truncated_file_is_an_error(networks, images, tmp_path):
    path = require_same_logits("ptl", networks["float"], images, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    for read in (read_spec, open_predictor):
        with pytest.raises(FertoolError, match="no header of fertool, or is truncated"):
            read(path)
