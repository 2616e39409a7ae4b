"""The same picture gives the same answer, however it comes and whatever stands beside it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fertool
from fertool.data.synth import draw_faces
from fertool.errors import FertoolError, UsageError
from fertool.results import PredictionSummary
from fertool.workflows.prediction_output import (
    PredictionOutputs,
    require_prediction_outputs,
    save_predictions,
)

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "nano_resnet.3bit.onnx"
PICTURES = ROOT / "tests" / "faces" / "pictures"


@pytest.fixture
def photos(tmp_path):
    """A folder with a photograph, pictures without a face, and files that are no pictures."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(PICTURES / "astronaut.jpg", folder / "a.jpg")
    shutil.copy(PICTURES / "astronaut.jpg", folder / "sub" / "a.jpg")
    shutil.copy(PICTURES / "coffee.jpg", folder / "coffee.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_one_by_one_and_as_a_folder_are_the_same(photos):
    together = {result.file: result for result in fertool.predict(MODEL, photos)}
    for file, result in together.items():
        (alone,) = fertool.predict(MODEL, file)
        assert alone == result
    assert len(together) == 4


def test_a_photograph_has_a_face_and_its_probabilities(photos):
    (result,) = fertool.predict(str(MODEL), photos / "a.jpg")
    (face,) = result.faces
    assert face.label == "happy"
    assert face.confidence == max(face.probabilities.values())
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert (result.width, result.height, result.time_s) == (384, 384, None)


def test_pixels_are_taken_like_a_file(photos):
    pixels = np.asarray(Image.open(photos / "a.jpg").convert("RGB"))
    (given,) = fertool.predict(MODEL, pixels)
    (read,) = fertool.predict(MODEL, photos / "a.jpg")
    assert given.faces == read.faces
    assert len(list(fertool.predict(MODEL, [pixels, photos / "a.jpg"]))) == 2
    with pytest.raises(UsageError):
        fertool.predict(MODEL, pixels.astype(float))


def test_crops_are_not_searched_and_are_answered_as_eval_answers(tmp_path):
    images = draw_faces(6, 1)[0]
    for index, image in enumerate(images):
        Image.fromarray(image[0]).save(tmp_path / f"{index}.png")
    results = list(fertool.predict(MODEL, tmp_path, detect=False))

    from fertool.runtime.opening import open_predictor

    logits = open_predictor(MODEL).logits(images).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for result, row in zip(results, expected, strict=True):
        (face,) = result.faces
        assert list(face.probabilities.values()) == pytest.approx(row, abs=1e-5)
        assert face.box == (0, 0, 48, 48)
        assert face.score is None


def test_a_face_below_the_least_confidence_is_unsure(photos):
    (result,) = fertool.predict(MODEL, photos / "a.jpg", min_confidence=0.999)
    assert result.faces[0].label == "unsure"
    assert result.faces[0].probabilities["happy"] > 0.5


def test_the_largest_face_only(tmp_path):
    faces = draw_faces(8, 3, 160)[0]
    scene = np.full((400, 640), 150, np.uint8)
    scene[20:180, 20:180] = faces[1, 0]
    large = np.asarray(Image.fromarray(faces[2, 0]).resize((300, 300)))
    scene[60:360, 300:600] = large
    everyone = next(iter(fertool.predict(MODEL, scene)))
    (largest,) = next(iter(fertool.predict(MODEL, scene, faces="largest"))).faces
    assert len(everyone.faces) == 2
    assert largest.box[0] > 280


def test_the_header_of_a_model_decides_how_faces_are_cut_and_how_sure_it_is(tmp_path, photos):
    from dataclasses import replace

    from fertool.models import create, pack_model
    from fertool.spec import InputSpec

    spec, module = create("nano_resnet", {}, InputSpec(), ("happy", "sad"))
    zoomed = tuple((0.5 + 1.3 * (x - 0.5), 0.5 + 1.3 * (y - 0.5)) for x, y in TEMPLATE)
    files = {}
    for name, changes in {
        "plain": {},
        "zoomed": {"face_template": zoomed},
        "calm": {"temperature": 5.0},
    }.items():
        files[name] = tmp_path / f"{name}.pt"
        files[name].write_bytes(pack_model(replace(spec, **changes), module)[1])
    results = {name: fertool.predict(path, photos / "a.jpg") for name, path in files.items()}
    assert results["zoomed"].header.template == "header"
    assert results["plain"].header.template == "fer2013"
    answers = {name: next(iter(found)).faces[0].confidence for name, found in results.items()}
    assert answers["zoomed"] != answers["plain"]
    assert 0.5 < answers["calm"] < answers["plain"]


def test_a_header_without_template_or_temperature_keeps_its_bytes():
    from fertool.artifact.header import read_spec

    text = read_spec(MODEL).to_json()
    assert "face_template" not in text
    assert "temperature" not in json.loads(text)


TEMPLATE = ((0.32, 0.37), (0.68, 0.37), (0.5, 0.59), (0.36, 0.75), (0.64, 0.75))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_files_of_results(photos, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    predictions = fertool.predict(MODEL, photos)
    summary = save_predictions(predictions, PredictionOutputs(results=target))
    assert summary == PredictionSummary(pictures=4, faces=2, without_face=1, unreadable=1)
    text = target.read_text()
    if suffix == ".csv":
        lines = text.splitlines()
        assert len(lines) == 5
        assert lines[0].endswith("p_surprise,p_neutral")
        assert {line.count(",") for line in lines} == {21}
        return
    if suffix == ".json":
        found = json.loads(text)
        assert found["summary"]["faces"] == 2
        assert found["classes"][0] == "angry"
        entries = found["pictures"]
    else:
        entries = [json.loads(line) for line in text.splitlines()]
    assert entries == [
        json.loads(json.dumps(each.as_dict())) for each in fertool.predict(MODEL, photos)
    ]
    errors = {Path(entry["file"]).name: entry["error"] for entry in entries if entry["error"]}
    assert errors == {"broken.jpg": "not a readable image"}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_ctrl_c_leaves_a_whole_file(photos, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"

    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_predictions(
            fertool.predict(MODEL, photos), PredictionOutputs(results=target), on_result=stop
        )
    text = target.read_text()
    if suffix == ".json":
        assert len(json.loads(text)["pictures"]) == 1
    else:
        assert text.endswith("\n")
        assert len(text.splitlines()) == (2 if suffix == ".csv" else 1)


def test_drawn_pictures_and_crops_of_equal_names_stay_apart(photos, tmp_path):
    outputs = PredictionOutputs(draw=tmp_path / "drawn", crops=tmp_path / "crops")
    save_predictions(fertool.predict(MODEL, [photos, photos / "sub" / "a.jpg"]), outputs)
    drawn = sorted(
        path.relative_to(tmp_path / "drawn").as_posix()
        for path in (tmp_path / "drawn").rglob("*.jpg")
    )
    assert drawn == ["a-2.jpg", "a.jpg", "coffee.jpg", "sub/a.jpg"]
    picture = np.asarray(Image.open(tmp_path / "drawn" / "a.jpg").convert("RGB")).astype(int)
    original = np.asarray(Image.open(photos / "a.jpg").convert("RGB")).astype(int)
    changed = np.abs(picture - original).max(2) > 60
    assert 200 < changed.sum() < 6000
    crop = Image.open(tmp_path / "crops" / "a.0.png")
    assert (crop.size, crop.mode) == ((48, 48), "L")


def test_drawing_into_the_folder_of_the_pictures_replaces_none(photos):
    before = (photos / "a.jpg").read_bytes()
    outputs = PredictionOutputs(draw=photos)
    predictions = fertool.predict(MODEL, photos / "a.jpg")
    save_predictions(predictions, outputs)
    assert (photos / "a.jpg").read_bytes() == before
    assert (photos / "a-2.jpg").exists()


def test_an_output_that_is_an_input_is_refused(photos):
    predictions = fertool.predict(MODEL, photos / "a.jpg")
    with pytest.raises(FertoolError, match="also an input"):
        require_prediction_outputs(PredictionOutputs(draw=photos / "a.jpg"), predictions)
    with pytest.raises(UsageError, match="jsonl"):
        require_prediction_outputs(PredictionOutputs(results=photos / "a.txt"), predictions)
    several = fertool.predict(MODEL, photos)
    with pytest.raises(UsageError, match="one file"):
        require_prediction_outputs(PredictionOutputs(draw=photos / "b.png"), several)


@pytest.fixture
def clip(tmp_path):
    """A video of 640 x 480 in which a drawn face moves to the right."""
    av = pytest.importorskip("av")
    tile = draw_faces(3, 3, 160)[0][1, 0]
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for number in range(12):
            picture = np.full((480, 640, 3), 150, np.uint8)
            picture[100:260, 50 + 10 * number : 210 + 10 * number] = tile[:, :, None]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_video_has_tracks_and_times_and_becomes_a_drawn_video(clip, tmp_path):
    import av

    outputs = PredictionOutputs(draw=tmp_path / "drawn.mp4", crops=tmp_path / "crops")
    predictions = fertool.predict(MODEL, clip, detect_size=320)
    results = []
    save_predictions(predictions, outputs, on_result=results.append)
    assert [result.frame for result in results] == list(range(12))
    assert [face.track for result in results for face in result.faces] == [0] * 12
    assert results[5].time_s == pytest.approx(0.2)
    with av.open(tmp_path / "drawn.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        times = [float(frame.time) for frame in container.decode(stream)]
    assert times == pytest.approx([0.04 * k for k in range(12)], abs=1e-3)
    assert (tmp_path / "crops" / "clip.000007.0.png").exists()


def test_ctrl_c_leaves_a_video_that_plays(clip, tmp_path):
    import av

    def stop(result):
        if result.frame == 5:
            raise KeyboardInterrupt

    outputs = PredictionOutputs(draw=tmp_path / "drawn")
    with pytest.raises(KeyboardInterrupt):
        save_predictions(fertool.predict(MODEL, clip), outputs, on_result=stop)
    with av.open(tmp_path / "drawn" / "clip.mp4") as container:
        assert len(list(container.decode(video=0))) == 6


def test_after_an_error_no_half_video_is_left(clip, tmp_path):
    def fail(result):
        raise FertoolError("no", "")

    outputs = PredictionOutputs(draw=tmp_path / "drawn")
    with pytest.raises(FertoolError):
        save_predictions(fertool.predict(MODEL, clip), outputs, on_result=fail)
    assert list((tmp_path / "drawn").iterdir()) == []


def test_smoothing_keeps_labels_from_changing_with_every_frame(clip):
    changes = {}
    for smooth in (0, 2.0):
        rows = []
        for result in fertool.predict(MODEL, clip, smooth=smooth):
            rows.append(list(result.faces[0].probabilities.values()))
        changes[smooth] = np.abs(np.diff(rows, axis=0)).sum()
    assert changes[2.0] < changes[0] / 2
