"""Files as cameras, archives and attackers leave them: no traceback, and the rest is done."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fertool.faces.finding import find_faces
from fertool.faces.frames import read_frames
from fertool.faces.sources import list_sources

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


def png_header(width, height):
    """Return a PNG that claims to be so large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def saved(image, format, **options):
    content = io.BytesIO()
    image.save(content, format, **options)
    return content.getvalue()


def with_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return saved(Image.fromarray(NOISE), "JPEG", exif=exif)


UNREADABLE = {
    "zero.jpg": b"",
    "text.jpg": b"dear reader",
    "page.jpg": b"<!doctype html><html><body>not found</body></html>",
    "truncated.jpg": saved(Image.fromarray(NOISE), "JPEG")[:900],
    "half.png": saved(Image.fromarray(NOISE), "PNG")[:9000],
    "bomb.png": png_header(30_000, 30_000),
    "claims.png": png_header(2**31 - 1, 2**31 - 1),
    "script.eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "fake.heic": b"\0\0\0\x18ftypheic" + bytes(64),
}
FRAMES = [Image.fromarray(NOISE), Image.new("RGB", (160, 120))]
READABLE = {
    "png.jpg": saved(Image.fromarray(NOISE), "PNG"),
    "1x1.png": saved(Image.new("RGB", (1, 1)), "PNG"),
    "flat.png": saved(Image.new("L", (4000, 3), 9), "PNG"),
    "panorama.png": saved(Image.new("L", (20_000, 200), 9), "PNG"),
    "odd.png": saved(Image.fromarray(NOISE[:33, :31]), "PNG"),
    "cmyk.jpg": saved(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
    "palette.png": saved(Image.fromarray(NOISE).convert("P"), "PNG"),
    "bilevel.png": saved(Image.fromarray(NOISE).convert("1"), "PNG"),
    "la.png": saved(Image.fromarray(NOISE).convert("LA"), "PNG"),
    "gray16.png": saved(Image.fromarray(np.full((40, 40), 700, np.uint16)), "PNG"),
    "i32.tif": saved(Image.fromarray(np.full((40, 40), 70_000, np.int32)), "TIFF"),
    "float.tif": saved(Image.fromarray(np.full((40, 40), 0.5, np.float32)), "TIFF"),
    "moving.gif": saved(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "moving.webp": saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
    "pages.tif": saved(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]),
    "exif99.jpg": with_orientation(99),
    "broken_exif.jpg": saved(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "profile.jpg": saved(
        Image.fromarray(NOISE),
        "JPEG",
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ),
    "broken_profile.jpg": saved(Image.fromarray(NOISE), "JPEG", icc_profile=b"no profile"),
    "black.png": saved(Image.new("RGB", (640, 480)), "PNG"),
    "white.png": saved(Image.new("RGB", (640, 480), "white"), "PNG"),
    "noise.png": saved(Image.fromarray(NOISE), "PNG"),
}


def frame_of(path):
    (source,) = list_sources([str(path)])
    (frame,) = read_frames(source)
    return frame


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_picture_is_an_error_with_a_hint(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(UNREADABLE[name])
    frame = frame_of(path)
    assert frame.image is None
    assert frame.error
    assert frame.hint
    assert str(tmp_path) not in frame.error


@pytest.mark.parametrize("name", READABLE)
def test_odd_pictures_are_read_and_have_no_face(tmp_path, name, detector):
    path = tmp_path / name
    path.write_bytes(READABLE[name])
    frame = frame_of(path)
    assert frame.error is None
    assert frame.image.mode in ("L", "RGB")
    assert find_faces(detector, frame.image) == []


@pytest.mark.parametrize("value", range(1, 9))
def test_photographs_of_any_orientation_show_the_same_face(tmp_path, value, astronaut, detector):
    # The inverse of what the reader does: 6 is turned by 90 degrees, 8 by 270.
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    turned = astronaut
    if value in undone:
        turned = astronaut.transpose(Image.Transpose(undone[value]))
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(turned, "JPEG", exif=exif, quality=95))
    (face,) = find_faces(detector, frame_of(path).image)
    assert face.box[:2] == pytest.approx((133, 48), abs=3)


def test_a_16_bit_picture_shows_its_face(tmp_path, astronaut, detector):
    gray = np.asarray(astronaut.convert("L")).astype(np.uint16) * 257
    path = tmp_path / "gray16.png"
    path.write_bytes(saved(Image.fromarray(gray), "PNG"))
    (face,) = find_faces(detector, frame_of(path).image)
    assert face.box[:2] == pytest.approx((133, 48), abs=3)


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        file.write(READABLE["odd.png"])
    (source,) = list_sources([str(tmp_path)])
    (frame,) = read_frames(source)
    assert frame.error is None


def test_heic_is_read_where_the_extra_is_installed(tmp_path, astronaut, detector):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "photo.heic"
    heif.from_pillow(astronaut).save(path, quality=90)
    (face,) = find_faces(detector, frame_of(path).image)
    assert face.box[:2] == pytest.approx((133, 48), abs=3)


def test_many_small_faces_are_found_at_a_larger_size(drawn, detector):
    from fertool.config.detection import DetectionConfig

    tile = drawn((0, 0)).crop((0, 0, 160, 160)).resize((64, 64))
    crowd = Image.new("RGB", (1280, 1280), (150, 150, 150))
    for x in range(0, 1280, 128):
        for y in range(0, 1280, 128):
            crowd.paste(tile, (x + 32, y + 32))
    found = find_faces(detector, crowd, DetectionConfig(detect_size=1280))
    assert len(found) > 80


def test_faces_that_leave_the_picture_still_give_crops(astronaut, detector):
    from fertool.faces.alignment import crop_face

    for left, top in ((150, 40), (133, 80), (100, 66)):
        part = astronaut.crop((left, top, left + 90, top + 90))
        for face in find_faces(detector, part):
            assert crop_face(part, face.landmarks, 48).size == (48, 48)


def test_a_folder_of_all_of_them_is_labeled_to_its_end(tmp_path, astronaut):
    import fertool

    model = Path(__file__).parents[2] / "models" / "nano_resnet.3bit.onnx"
    for name, content in {**UNREADABLE, **READABLE}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    astronaut.save(tmp_path / "folder.jpg" / "photo.jpg")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing.jpg")
    predictions = fertool.predict(model, tmp_path)
    results = list(predictions)
    assert len(results) == len(UNREADABLE) + len(READABLE) + 2
    assert predictions.summary.unreadable == len(UNREADABLE) + 1
    (found,) = [result for result in results if result.faces]
    assert found.file.endswith("folder.jpg/photo.jpg")
