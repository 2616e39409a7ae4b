"""Each format and mode shows what the upright 8-bit original shows."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from fertool.data import decoding
from fertool.data.decoding import LARGEST_PIXELS, decoded_image, image_suffixes, scan_image
from fertool.data.image_batches import ImageEntry, decode_images
from fertool.data.image_tree import ImageTree
from fertool.errors import FertoolError

LOSSLESS = {"png": {}, "tif": {}, "webp": {"lossless": True}}
LOSSY = {
    "jpg": {"quality": 100, "subsampling": 0},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
}
TURNS = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}
"""How a camera held in each of the eight ways stores an upright scene."""


def scene(channels=1, size=48):
    """A smooth picture that differs from each of its turned copies: uint8 [S, S] or [S, S, 3]."""
    y, x = np.mgrid[0:size, 0:size] / size
    gray = 20 + 120 * x + 90 * y * y
    if channels == 1:
        return gray.round().astype(np.uint8)
    return np.stack([gray, 240 - 100 * y, 60 + 80 * x * y], axis=2).round().astype(np.uint8)


def read(path, channels=1):
    """Read one image file as a source does: pixels [C, S, S], and what was converted."""
    tree = ImageTree(
        path.parent, ("happy",), {"train": [ImageEntry(path, "happy")]}, channels=channels
    )
    pixels = tree.read("train").images[0]
    return pixels, dict(tree.findings.converted)


def expected(pixels, channels):
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    shown = np.asarray(image)
    return shown[None] if channels == 1 else shown.transpose(2, 0, 1)


def assert_shows(path, original, channels, within=0):
    found, converted = read(path, channels)
    wanted = expected(original, channels)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= within
    return converted


def formats():
    known = {
        suffix: options
        for suffix, options in (LOSSLESS | LOSSY).items()
        if f".{suffix}" in image_suffixes()
    }
    return [pytest.param(suffix, options, id=suffix) for suffix, options in known.items()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("suffix", "options"), formats())
@pytest.mark.parametrize("tag", TURNS)
def test_a_turned_image_is_turned_upright(tmp_path, tag, suffix, options, channels):
    upright = scene(3)
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(TURNS[tag](upright))).save(path, exif=exif, **options)
    # What a lossy format itself changes is not this test's matter.
    within = 2 if suffix in LOSSLESS else 6
    converted = assert_shows(path, upright, channels, within)
    assert converted == ({} if tag == 1 else {"orientation": 1})


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_a_tag_of_no_orientation_changes_nothing(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(scene()).save(tmp_path / "a.png", exif=exif)
    assert assert_shows(tmp_path / "a.png", scene(), 1) == {}


def save_wide(path, levels, kind):
    if kind == "float":
        Image.fromarray(levels.astype(np.float32) / 255).save(path)
    elif kind == "float of levels":
        Image.fromarray(levels.astype(np.float32)).save(path)
    elif kind == "float around zero":
        Image.fromarray(levels.astype(np.float32) / 127.5 - 1).save(path)
    elif kind == "16-bit":
        Image.fromarray(levels.astype(np.uint16) * 257).save(path)
    elif kind == "32-bit of levels":
        Image.fromarray(levels.astype(np.int32)).save(path)
    elif kind == "32-bit of 16":
        Image.fromarray(levels.astype(np.int32) * 257).save(path)
    else:
        Image.fromarray((levels * ((2**31 - 1) / 255)).astype(np.int32)).save(path)


WIDE = {
    "float": "float",
    "float of levels": "float",
    "float around zero": "float",
    "16-bit": "16-bit",
    "32-bit of levels": "32-bit",
    "32-bit of 16": "32-bit",
    "32-bit": "32-bit",
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", WIDE)
def test_wide_samples_of_tiff_are_scaled_by_their_range(tmp_path, kind, channels):
    save_wide(tmp_path / "a.tiff", scene(), kind)
    assert assert_shows(tmp_path / "a.tiff", scene(), channels, 1) == {WIDE[kind]: 1}


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("kind", WIDE)
def test_compression_does_not_change_wide_samples(tmp_path, kind, compression):
    save_wide(tmp_path / "plain.tif", scene(), kind)
    with Image.open(tmp_path / "plain.tif") as image:
        image.save(tmp_path / "a.tif", compression=compression)
    assert_shows(tmp_path / "a.tif", scene(), 1, 1)


@pytest.mark.parametrize("maximum", [1, 15, 100, 255, 256, 1023, 4095, 30000, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_netpbm_files_are_scaled_by_the_maximum_they_state(tmp_path, maximum, channels):
    original = scene(channels)
    values = np.rint(original / 255 * maximum)
    magic, suffix = (b"P5", "pgm") if channels == 1 else (b"P6", "ppm")
    content = values.astype(">u2" if maximum > 255 else np.uint8).tobytes()
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"%s 48 48 %d\n" % (magic, maximum) + content)
    rounding = int(np.ceil(255 / maximum / 2))
    converted = assert_shows(path, original, channels, rounding + 1)
    assert converted == ({"16-bit": 1} if maximum > 255 else {})


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_portable_float_map_is_read(tmp_path, order):
    values = np.flipud(scene() / 255).astype(f"{order}f4")
    (tmp_path / "a.pfm").write_bytes(
        b"Pf\n48 48\n%d\n" % (-1 if order == "<" else 1) + values.tobytes()
    )
    assert assert_shows(tmp_path / "a.pfm", scene(), 1, 1) == {"float": 1}


def png(bits, color, rows, transparent=None):
    """Write a PNG by hand: Pillow writes neither wide colors nor few gray levels with a transparent
    one.
    """

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    width = len(rows[0]) * 8 // bits // {0: 1, 2: 3, 4: 2, 6: 4}[color]
    header = struct.pack(">IIBBBBB", width, len(rows), bits, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    if transparent is not None:
        parts.insert(1, chunk(b"tRNS", transparent))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("color", [0, 2, 4, 6])
def test_png_files_of_16_bits_show_their_8_bit_original(tmp_path, color, channels):
    original = scene(3 if color in (2, 6) else 1)
    samples = original.astype(np.uint16).reshape(48, 48, -1) * 257
    if color in (4, 6):
        samples = np.concatenate([samples, np.full((48, 48, 1), 65535, np.uint16)], axis=2)
    rows = [row.astype(">u2").tobytes() for row in samples]
    (tmp_path / "a.png").write_bytes(png(16, color, rows))
    assert assert_shows(tmp_path / "a.png", original, channels, 1) == {"16-bit": 1}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_gray_of_a_png_is_told_in_its_own_units(tmp_path, bits):
    values = np.array([0, 1, 2, 3, 4, 5, 6, 7]) % min(2**bits, 8)
    if bits == 16:
        row = values.astype(">u2").tobytes()
    else:
        row = np.packbits(
            ((values[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
        ).tobytes()
    (tmp_path / "a.png").write_bytes(png(bits, 0, [row] * 8, struct.pack(">H", 1)))
    found, converted = read(tmp_path / "a.png")
    assert set(found[0, 0][values == 1]) == {128}
    assert 128 not in found[0, 0][values != 1]
    assert converted["transparency"] == 1


def laid_on_gray(color, alpha):
    share = alpha[:, :, None] / 255
    shown = np.rint(color.reshape(48, 48, -1) * share + 128 * (1 - share)).astype(np.uint8)
    return shown[:, :, 0] if shown.shape[2] == 1 else shown


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("suffix", "options"), [(s, o) for s, o in LOSSLESS.items()])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_mid_gray(tmp_path, mode, suffix, options, channels):
    color = scene(3 if mode == "RGBA" else 1)
    alpha = np.tile(np.linspace(1, 255, 48).round().astype(np.uint8), (48, 1))
    image = Image.fromarray(color)
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    image.save(tmp_path / f"a.{suffix}", **options, **({"exact": True} if suffix == "webp" else {}))
    assert assert_shows(tmp_path / f"a.{suffix}", laid_on_gray(color, alpha), channels, 2) == {
        "transparency": 1
    }


def test_an_opaque_alpha_channel_changes_nothing_and_is_not_counted(tmp_path):
    image = Image.fromarray(scene(3))
    image.putalpha(255)
    image.save(tmp_path / "a.png")
    assert assert_shows(tmp_path / "a.png", scene(3), 3) == {}


@pytest.mark.parametrize("suffix", ["png", "gif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_palettes_are_looked_up_and_their_transparent_color_is_gray(tmp_path, suffix, channels):
    levels = scene() // 64
    palette = [[250, 10, 20], [10, 250, 30], [40, 50, 250], [200, 200, 10]]
    image = Image.fromarray(levels).convert("P")
    image.putpalette([level for color in palette for level in color])
    image.save(tmp_path / f"a.{suffix}")
    colors = np.array(palette, np.uint8)
    assert assert_shows(tmp_path / f"a.{suffix}", colors[levels], channels) == {}
    image.save(tmp_path / f"b.{suffix}", transparency=2)
    colors[2] = 128
    assert assert_shows(tmp_path / f"b.{suffix}", colors[levels], channels) == {"transparency": 1}


def test_a_palette_with_alpha_is_laid_on_gray(tmp_path):
    image = Image.fromarray(scene() // 128).convert("P")
    image.putpalette([200, 200, 200, 100, 100, 100])
    image.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    assert_shows(tmp_path / "a.png", np.array([200, 128], np.uint8)[scene() // 128], 1, 1)


def test_the_transparent_color_of_an_rgb_png_is_gray(tmp_path):
    color = scene(3)
    color[10:20] = (1, 2, 3)
    Image.fromarray(color).save(tmp_path / "a.png", transparency=(1, 2, 3))
    color[10:20] = 128
    assert assert_shows(tmp_path / "a.png", color, 3) == {"transparency": 1}


@pytest.mark.parametrize("suffix", ["png", "tif", "pbm"])
def test_one_bit_is_black_and_white(tmp_path, suffix):
    bits = scene() > 120
    Image.fromarray(bits).save(tmp_path / f"a.{suffix}")
    assert assert_shows(tmp_path / f"a.{suffix}", bits.astype(np.uint8) * 255, 1) == {}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("suffix", "within"), [("tif", 0), ("jpg", 6)])
def test_cmyk_files_show_their_rgb_original(tmp_path, suffix, within, channels):
    Image.fromarray(scene(3)).convert("CMYK").save(
        tmp_path / f"a.{suffix}", quality=100, subsampling=0
    )
    assert assert_shows(tmp_path / f"a.{suffix}", scene(3), channels, within) == {"CMYK": 1}


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_color_spaces_of_tiff_become_rgb(tmp_path, mode):
    # Muted, for LAB has few levels where colors are strong.
    muted = (scene(3) // 8 + scene()[:, :, None] // 2 + 40).astype(np.uint8)
    original = Image.fromarray(muted)
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        original = ImageCms.applyTransform(original, to_lab)
    else:
        original = original.convert(mode)
    original.save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        if image.mode != mode:
            pytest.skip("this Pillow cannot read what it wrote")
    assert_shows(tmp_path / "a.tif", muted, 3, 3)


def other_profile():
    """An RGB profile with sRGB's red and green primaries exchanged:
    a conversion that nobody overlooks.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    places = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * count, 12)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colors_of_another_profile_become_srgb(tmp_path, suffix):
    exchanged = scene(3)[:, :, [1, 0, 2]]
    Image.fromarray(exchanged).save(tmp_path / f"a.{suffix}", icc_profile=other_profile())
    assert assert_shows(tmp_path / f"a.{suffix}", scene(3), 3, 2) == {"color profile": 1}


@pytest.mark.parametrize("profile", ["srgb", "damaged", "empty", "of other channels"])
def test_a_profile_that_changes_nothing_or_cannot_be_used_is_ignored(tmp_path, profile):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = {"srgb": srgb, "damaged": srgb[:200], "empty": b"\0", "of other channels": srgb}[
        profile
    ]
    original = scene(1 if profile == "of other channels" else 3)
    Image.fromarray(original).save(tmp_path / "a.png", icc_profile=content)
    assert assert_shows(tmp_path / "a.png", original, 3) == {}


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_frames_is_taken(tmp_path, suffix):
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    frames[0].save(
        tmp_path / f"a.{suffix}",
        save_all=True,
        append_images=frames[1:],
        **LOSSLESS.get(suffix, {}),
    )
    assert assert_shows(tmp_path / f"a.{suffix}", scene(), 1, 2) == {"first frame": 1}


def test_a_damaged_second_frame_leaves_the_first_as_it_is(tmp_path):
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    for end in range(len(content) // 2 + 100, len(content), 7):
        (tmp_path / f"{end}.gif").write_bytes(content[:end])
        with decoded_image(tmp_path / f"{end}.gif") as decoded:
            assert np.abs(np.asarray(decoded.image.convert("L")).astype(int) - scene()).max() <= 2


def test_all_of_it_at_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.ascontiguousarray(TURNS[6](scene()))
    Image.fromarray(stored.astype(np.uint16) * 257).save(tmp_path / "a.png", exif=exif)
    assert assert_shows(tmp_path / "a.png", scene(), 3, 1) == {"orientation": 1, "16-bit": 1}


def test_a_box_is_cut_out_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(TURNS[6](scene()))).save(tmp_path / "a.png", exif=exif)
    found = next(decode_images([ImageEntry(tmp_path / "a.png", "happy", (4, 8, 24, 28))], 20, 1))
    assert np.array_equal(found[0, 0], scene()[8:28, 4:24])


def test_a_box_beside_the_image_is_an_error_that_names_both(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    with pytest.raises(
        FertoolError, match=r"a\.png: 48x48 pixels, but the face box .* 60,0 to 70,10"
    ):
        next(decode_images([ImageEntry(tmp_path / "a.png", "happy", (60, 0, 70, 10))], 10, 1))


def bombs():
    huge = (20000, 20000)
    gif = (
        struct.pack("<6sHHBBB", b"GIF89a", 60000, 60000, 0, 0, 0)
        + b",\0\0\0\0"
        + struct.pack("<HHB", 60000, 60000, 0)
    )
    bmp = struct.pack("<2sIHHI", b"BM", 1000, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, *huge, 1, 24, 0, 0, 0, 0, 0, 0
    )
    small_png = png(8, 0, [bytes(8)] * 8)
    header = b"IHDR" + struct.pack(">IIBBBBB", *huge, 8, 0, 0, 0, 0)
    large_png = small_png[:12] + header + struct.pack(">I", zlib.crc32(header)) + small_png[33:]
    return {
        "png": large_png,
        "pgm": b"P5 20000 20000 255\n" + bytes(100),
        "gif": gif + bytes(100),
        "bmp": bmp,
    }


@pytest.mark.parametrize("suffix", ["png", "pgm", "gif", "bmp"])
@pytest.mark.parametrize("size", [None, 48])
def test_a_decompression_bomb_is_refused_by_the_size_it_declares(tmp_path, suffix, size, recwarn):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(bombs()[suffix])
    tracemalloc.start()
    with pytest.raises(FertoolError, match=rf"a\.{suffix}: declares ") as error:
        ImageTree(tmp_path, ("happy",), {"train": [ImageEntry(path, "happy")]}, size=size).read(
            "train"
        )
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    assert error.value.hint
    assert not recwarn.list


def test_an_image_just_within_the_limit_is_read_without_a_warning(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 47)
    Image.fromarray(scene()).save(tmp_path / "a.png")
    assert_shows(tmp_path / "a.png", scene(), 1)
    monkeypatch.setattr(decoding, "LARGEST_PIXELS", 48 * 48 - 1)
    with pytest.raises(FertoolError, match="declares 48x48 pixels"):
        read(tmp_path / "a.png")
    assert LARGEST_PIXELS > 50_000_000
    assert not recwarn.list


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FertoolError, match=r"a\.png: a file of 1,099,511,627,776 bytes"):
        scan_image(tmp_path / "a.png")


@pytest.mark.parametrize("values", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_no_image(tmp_path, values):
    pixels = scene().astype(np.float32)
    pixels[3, 3] = values
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(FertoolError, match=r"a\.tif: not a readable image"):
        read(tmp_path / "a.tif")


def test_white_may_be_zero(tmp_path):
    Image.fromarray((255 - scene()).astype(np.uint16) * 257).save(
        tmp_path / "a.tif", tiffinfo={262: 0}
    )
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0
    assert_shows(tmp_path / "a.tif", scene(), 1, 1)


SEEDS = {}


def seeds():
    """Small valid files of every format, as bytes."""
    if not SEEDS:
        exif = Image.Exif()
        exif[0x0112] = 6
        for suffix, options in (LOSSLESS | LOSSY | {"gif": {}, "bmp": {}}).items():
            if f".{suffix}" in image_suffixes():
                for mode in ("L", "RGB", "RGBA"):
                    buffer = io.BytesIO()
                    image = Image.fromarray(scene(3)).resize((16, 16)).convert(mode)
                    if suffix == "jpg":
                        image = image.convert("CMYK" if mode == "RGBA" else mode)
                    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
                    meta = (
                        {}
                        if suffix in ("gif", "bmp")
                        else {"exif": exif, "icc_profile": other_profile()}
                    )
                    image.save(buffer, kind, **options, **meta)
                    SEEDS[suffix, mode] = buffer.getvalue()
    return SEEDS


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_named_and_nothing_else(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(sorted(seeds().items())))[1])
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))]
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    path.write_bytes(content)
    assert outcome(path) in ("L", "RGB", f"{path}: ")


def outcome(path):
    """Return the mode of the decoded image, or how the error begins."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scan_image(path)
            with decoded_image(path) as decoded:
                return decoded.image.mode
    except FertoolError as error:
        return error.message[: len(f"{path}: ")]


def test_exif_transpose_of_pillow_agrees(tmp_path):
    for tag in TURNS:
        exif = Image.Exif()
        exif[0x0112] = tag
        Image.fromarray(scene(3, 32)[:, :20]).save(tmp_path / "a.png", exif=exif)
        with Image.open(tmp_path / "a.png") as image, decoded_image(tmp_path / "a.png") as decoded:
            assert np.array_equal(
                np.asarray(ImageOps.exif_transpose(image)), np.asarray(decoded.image)
            )


def tiff_of_planes(levels):
    """A TIFF of 16-bit RGB [H, W, 3] in which each color is a plane of its own,
    as some microscopes write.
    """
    planes = [levels[..., k].astype("<u2").tobytes() for k in range(3)]
    height, width = levels.shape[:2]
    places = [8 + sum(map(len, planes[:k])) for k in range(3)]
    tags = {256: [width], 257: [height], 258: [16] * 3, 259: [1], 262: [2], 273: places, 277: [3]}
    tags |= {278: [height], 279: [len(plane) for plane in planes], 284: [2]}
    start = 8 + sum(map(len, planes))
    behind = start + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, numbers in tags.items():
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack("<I", behind + len(values)), values + packed
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    directory = struct.pack("<H", len(tags)) + entries + bytes(4) + values
    return b"II*\0" + struct.pack("<I", start) + b"".join(planes) + directory


def test_wide_colors_in_planes_are_refused_since_pillow_misreads_them(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_of_planes(scene(3).astype(np.uint16) * 257))
    with pytest.raises(
        FertoolError, match=r"a\.tif: not a readable image: colors of 16 bits in separate planes"
    ):
        read(tmp_path / "a.tif")
