import pytest

from fertool.errors import FertoolError, UsageError
from fertool.web import runtime_files
from fertool.web.runtime_files import RuntimeFiles, find_runtime


def test_archives_folders_and_their_dist_are_the_same_files(runtime, archive):
    found = [find_runtime(place) for place in (archive, runtime, runtime / "dist")]
    assert found[0] == found[1] == found[2]
    assert found[0].binary.startswith(b"\0asm")


def test_without_one_the_hint_is_the_command_of_npm(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime_files, "PACKAGED", tmp_path / "none")
    with pytest.raises(UsageError, match="``runtime``: the page needs onnxruntime-web") as caught:
        find_runtime(None)
    assert caught.value.hint.startswith("npm pack onnxruntime-web@1.30.0")


def test_a_release_may_carry_the_files(runtime, monkeypatch):
    monkeypatch.setattr(runtime_files, "PACKAGED", runtime)
    assert find_runtime(None) == find_runtime(runtime)


@pytest.mark.parametrize("kind", ["missing", "empty folder", "text", "truncated"])
def test_other_places_are_one_error_with_the_command(tmp_path, archive, kind):
    place = tmp_path / "place"
    if kind == "empty folder":
        place.mkdir()
    elif kind == "text":
        place.write_text("no archive")
    elif kind == "truncated":
        place.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(FertoolError, match="place: ") as caught:
        find_runtime(place)
    assert "npm pack" in caught.value.hint


def test_an_inline_script_gives_its_exports_to_the_page(runtime):
    script = find_runtime(runtime).inline_script
    assert script.endswith("globalThis.onnxruntime={InferenceSession:a,Tensor:b,default:b};")
    assert "export" not in script
    assert "sourceMappingURL" not in script


@pytest.mark.parametrize("script", ["const a = 1;", "'</SCRIPT>';export{a};", "'<!--';export{a};"])
def test_a_script_that_cannot_stand_in_a_page_is_refused(script):
    with pytest.raises(FertoolError, match=r"not the module of onnxruntime-web 1\.30\.0"):
        _ = RuntimeFiles(script, b"").inline_script
