"""Pictures in and out: every kind, every orientation, every kind of bad input."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emotion import media
from emotion.errors import UserError

MEDIA = Path(__file__).parent / "media"
PORTRAIT = MEDIA / "portrait_hopper.jpg"


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return media.read_image(PORTRAIT)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    """Levels that differ everywhere, so that any turn or swap shows."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 7, y * 9, x * 3 + y * 4], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    "path", sorted(p for p in MEDIA.iterdir() if p.suffix in (".jpg", ".png")), ids=lambda p: p.name
)
def test_real_pictures(path):
    array = media.read_image(path)
    assert array.dtype == np.uint8 and array.shape[2] == 3 and array.flags.c_contiguous and array.flags.writeable
    assert array.shape[:2] == Image.open(path).size[::-1]
    assert array.std() > 20  # a photo, not an empty canvas


def test_every_kind_of_source_gives_the_same(picture):
    data = PORTRAIT.read_bytes()
    with PORTRAIT.open("rb") as file, Image.open(PORTRAIT) as image:
        for source in (str(PORTRAIT), PORTRAIT, data, bytearray(data), io.BytesIO(data), file, image, picture):
            np.testing.assert_array_equal(media.read_image(source), picture)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "PPM"])
def test_lossless_formats(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(media.read_image(encoded(Image.fromarray(gradient()), kind, **options)), gradient())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, kind):
    # What a camera held that way stores: the inverse of what a viewer has to do.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](gradient())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    np.testing.assert_array_equal(media.read_image(data), gradient())


def test_orientation_of_a_jpeg_and_of_an_opened_image(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(np.rot90(picture).copy()), "JPEG", exif=exif, quality=95)
    image = Image.open(io.BytesIO(data))
    for source in (data, image):
        assert np.abs(media.read_image(source).astype(int) - picture).mean() < 3
    assert image.getexif()[0x0112] == 6, "the caller's image must stay as it is"


def test_unreadable_exif_is_no_reason_to_fail():
    data = encoded(Image.fromarray(gradient()), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    np.testing.assert_array_equal(media.read_image(data), gradient())


def test_grey_and_one_bit():
    grey = gradient()[:, :, 0]
    for mode in ("L", "1"):
        image = Image.fromarray(grey).convert(mode)
        expected = np.repeat(np.array(image.convert("L"))[:, :, None], 3, axis=2)
        np.testing.assert_array_equal(media.read_image(encoded(image)), expected)


def test_transparency_is_laid_on_white():
    rgba = np.dstack([gradient(), np.full((24, 32), 255, np.uint8)])
    rgba[:12, :, 3] = 0
    rgba[12, :, 3] = 128
    expected = gradient()
    expected[:12] = 255
    for source in (encoded(Image.fromarray(rgba)), rgba, Image.fromarray(rgba)):
        out = media.read_image(source)
        np.testing.assert_array_equal(out[:12], 255)
        np.testing.assert_array_equal(out[13:], expected[13:])
        assert np.abs(out[12] - (rgba[12, :, :3] * (128 / 255) + 255 * (127 / 255))).max() <= 1
    grey_alpha = np.dstack([gradient()[:, :, 1], rgba[:, :, 3]])
    np.testing.assert_array_equal(media.read_image(grey_alpha)[:12], 255)
    np.testing.assert_array_equal(media.read_image(grey_alpha)[13:, :, 2], gradient()[13:, :, 1])


def test_palette_with_transparency():
    image = Image.fromarray(gradient()).quantize(16)
    opaque = np.array(image.convert("RGB"))
    np.testing.assert_array_equal(media.read_image(encoded(image)), opaque)
    index = np.array(image)[0, 0]
    out = media.read_image(encoded(image, transparency=int(index)))
    transparent = np.array(image) == index
    assert (out[transparent] == 255).all() and (out[~transparent] == opaque[~transparent]).all()


def test_cmyk_jpeg_is_not_inverted(picture):
    data = encoded(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data[:200]
    assert np.abs(media.read_image(data).astype(int) - picture).mean() < 4
    tiff = encoded(Image.fromarray(picture).convert("CMYK"), "TIFF")
    assert np.abs(media.read_image(tiff).astype(int) - picture).mean() < 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind):
    levels = gradient()[:, :, 0]
    deep = levels.astype(np.uint16) * 257
    for source in (encoded(Image.fromarray(deep), kind), deep):
        np.testing.assert_array_equal(media.read_image(source)[:, :, 1], levels)


def test_wide_integers_and_floats():
    levels = gradient()[:, :, 0]
    for white, kind in ((1, np.float32), (255, np.float32), (65535, np.float32), (255, np.int32), (65535, np.int32)):
        stretched = (levels / 255 * white).astype(np.float64)
        stretched[0, 0] = white  # says which white is meant
        array = np.rint(stretched).astype(kind) if kind == np.int32 else stretched.astype(kind)
        expected = levels.copy()
        expected[0, 0] = 255
        for source in (array, encoded(Image.fromarray(array), "TIFF")):
            np.testing.assert_array_equal(media.read_image(source)[:, :, 0], expected)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((20, 20, 3), level, np.uint8)) for level in (200, 10)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert media.read_image(data).mean() == pytest.approx(200, abs=2)


def test_arrays_pass_without_a_copy():
    array = gradient()
    assert media.read_image(array) is array
    assert media.read_image(array[:, :, ::-1]).flags.c_contiguous


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"II*\0"]),
)
def test_any_bytes_give_a_picture_or_a_clear_error(tail, head):
    with pytest.raises(UserError):
        media.read_image(head + tail)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]))
def test_damaged_files_never_fail_otherwise(seed, kind):
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(Image.fromarray(gradient()), kind))
    for position in rng.integers(0, len(data), 12):
        data[position] = rng.integers(256)
    try:
        assert media.read_image(bytes(data)).shape[2] == 3
    except UserError as error:
        assert len(str(error)) < 300


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated(share):
    data = PORTRAIT.read_bytes()
    with pytest.raises(UserError, match="damaged"):
        media.read_image(data[: int(len(data) * share)])


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost no data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(9000, 9000), (10_000, 10_000), (60_000, 60_000), (2**30, 2**30)])
def test_too_many_pixels_cost_nothing(size, monkeypatch):
    def decode(*_):
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    with pytest.raises(UserError, match="80 megapixels"):
        media.read_image(png_header(*size))


@pytest.mark.filterwarnings("error")
def test_pillows_warning_as_an_error_is_the_same_error():
    with pytest.raises(UserError, match="80 megapixels"):
        media.read_image(png_header(10_000, 10_000))


def test_limits_of_size(monkeypatch):
    side = media.MIN_SIDE
    assert media.read_image(np.zeros((side, side, 3), np.uint8)).shape == (side, side, 3)
    for shape in ((1, 1, 3), (side - 1, 100, 3), (100, side - 1)):
        with pytest.raises(UserError, match="at least 16"):
            media.read_image(np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="at least 16"):
        media.read_image(encoded(Image.new("RGB", (1, 1))))
    with pytest.raises(UserError, match="80 megapixels"):
        media.read_image(np.broadcast_to(np.uint8(0), (9000, 9000, 3)))
    monkeypatch.setattr(media, "MAX_BYTES", 1000)
    for source in (PORTRAIT, PORTRAIT.read_bytes(), io.BytesIO(PORTRAIT.read_bytes())):
        with pytest.raises(UserError, match="larger than"):
            media.read_image(source)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((20, 20), np.nan), "not finite"),
        (np.full((20, 20, 3), np.inf, np.float32), "not finite"),
        (np.full((20, 20), -0.5), "from -0.5"),
        (np.full((20, 20), 1e6), "scale them"),
        (np.zeros((20, 20), complex), "type complex"),
        (np.full((20, 20), "a"), "type <U1"),
        (np.full((20, 20), None), "type object"),
        (np.zeros((3, 20, 20), np.uint8), "channels to the end"),
        (np.zeros((2, 20, 20, 3), np.uint8), "expected"),
        (np.zeros((20, 20, 5), np.uint8), "expected"),
        (np.zeros(20, np.uint8), "expected"),
        (np.zeros((), np.uint8), "expected"),
        (np.zeros((0, 0, 3), np.uint8), "at least 16"),
    ],
)
def test_arrays_that_are_no_pictures(array, message):
    with pytest.raises(UserError, match=message):
        media.read_image(array)


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello, I am a letter\n" * 20)
    (tmp_path / "phone.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + b"\0" * 4 + b"mif1heic" + b"\0" * 100)
    for source, message in [
        (tmp_path / "empty.jpg", "empty.jpg is empty"),
        (tmp_path / "text.jpg", "text.jpg is no picture"),
        (tmp_path / "missing.jpg", "there is no file"),
        (tmp_path, "is a folder"),
        (MEDIA / "talk_man_1.mp4", "is a video"),
        (tmp_path / "phone.heic", "HEIC"),
        (tmp_path / ("x" * 5000), "cannot read|no file"),
        ("a\0b", "cannot read|no file"),
        (b"", "is empty"),
        (io.StringIO("text"), "mode 'rb'"),
        (42, "from int"),
        (None, "from NoneType"),
    ]:
        with pytest.raises(UserError, match=message):
            media.read_image(source)


def test_formats_that_start_other_programs_stay_closed():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n"
    with pytest.raises(UserError, match="no picture"):
        media.read_image(eps)


def test_many_threads(picture):
    with ThreadPoolExecutor(8) as pool:
        for out in pool.map(media.read_image, [PORTRAIT] * 16):
            np.testing.assert_array_equal(out, picture)


def test_is_video(tmp_path):
    clip = (MEDIA / "talk_two_people.mp4").read_bytes()
    (tmp_path / "no_extension").write_bytes(clip)
    (tmp_path / "wrong.jpg").write_bytes(clip)
    (tmp_path / "photo.mp4").write_bytes(PORTRAIT.read_bytes())
    for name, expected in [
        ("no_extension", True),
        ("wrong.jpg", True),
        ("photo.mp4", False),
        ("missing.avi", True),
        ("missing.jpg", False),
    ]:
        assert media.is_video(tmp_path / name) is expected, name
    assert media.is_video(MEDIA / "talk_man_1.mp4") and not media.is_video(PORTRAIT)


@pytest.mark.parametrize("suffix", sorted(media.WRITERS))
def test_save_and_read_again(tmp_path, suffix):
    path = tmp_path / f"out{suffix.upper()}"
    media.save_image(gradient(), path)
    out = media.read_image(path)
    assert np.abs(out.astype(int) - gradient()).mean() < (3 if "jp" in suffix else 1e-9)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_save_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.png"
    media.save_image(gradient(), path)
    media.save_image(gradient()[:, :, 0], path)
    assert (media.read_image(path)[:, :, 2] == gradient()[:, :, 0]).all()
    with pytest.raises(UserError, match="unknown picture extension"):
        media.save_image(gradient(), tmp_path / "out.xyz")
    with pytest.raises(UserError, match="such a folder"):
        media.save_image(gradient(), tmp_path / "nowhere" / "out.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        media.save_image(gradient(), tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "out.png"]
