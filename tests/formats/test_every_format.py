"""What holds for all formats, also for those whose converters are not installed."""

import pytest

from fertool.config.exporting import ExportConfig
from fertool.errors import UsageError
from fertool.formats.format import load_format
from fertool.registry import FORMATS


@pytest.mark.parametrize("name", [name for name in FORMATS.names() if name != "onnx"])
def test_packed_weights_are_refused_by_all_but_onnx(name, networks, tmp_path):
    format = load_format(name)
    path = tmp_path / f"a{format.suffix}"
    with pytest.raises(UsageError, match=f"``packed=True``: an {format.suffix} file"):
        format.write(path, *networks["int8"], config=ExportConfig(packed=True))
    assert not path.exists()
