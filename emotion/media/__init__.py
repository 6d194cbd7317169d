"""Pictures in and out: any common picture becomes one upright 8-bit RGB array; anything else one clear error.

Decisions:
- Orientation: the EXIF tag is applied, so pixels are as a viewer shows them.
- Transparency is laid on white, the ground that cut-outs are drawn for; black fringes would look like hair.
- Colour profiles are ignored, as by the readers that the models' training pictures went through (OpenCV, Pillow).
- More than 8 bits: the smallest of 1 (fractions only), 255 and 65535 that no value exceeds is taken for white; a file
  or array of 16-bit levels always has white at 65535. Contrast is never stretched.
- Several frames or pages: the first.

Videos are recognised here (`is_video`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from emotion.errors import UserError

MAX_PIXELS = 80_000_000  # 240 MB as an array; larger than any phone's or press camera's picture
MIN_SIDE = 16  # pixels; no face is recognisable below
MAX_BYTES = 500_000_000  # of a picture file: MAX_PIXELS in 16-bit RGB, uncompressed

HEAD = 189  # first bytes of a file that tell what it is

# Formats that are decoded. Others that Pillow knows (EPS, PSD, ...) are rare, and some start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "MPO", "AVIF", "JPEG2000", "PPM", "ICO", "HEIF")

WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
}

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
))
SOUND_SUFFIXES = frozenset((
    ".aac", ".aif", ".aifc", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma",
))
# fmt: on
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevx", b"mif1", b"msf1")
_IMAGE_BRANDS = (*_HEIF_BRANDS, b"avif", b"avis", b"jp2 ", b"crx ")

Picture = str | Path | bytes | BinaryIO | Image.Image | np.ndarray


def read_image(source: Picture) -> np.ndarray:
    """A picture as an array.

    Args:
        source: file name, the file's bytes, an open binary file, a Pillow image, or an array: [H, W], [H, W, 1]
            grey, [H, W, 2] grey and alpha, [H, W, 3] RGB, [H, W, 4] RGBA, of any real type.

    Returns:
        uint8 [H, W, 3], RGB, upright, contiguous. An array that is like this already is returned as it is.

    Raises:
        UserError: missing, unreadable, damaged, no picture, too large or too small, values that are no levels.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, "this picture")
    if isinstance(source, (str, Path)):
        return _from_path(Path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), "this picture")
    if hasattr(source, "read"):
        data = source.read(MAX_BYTES + 1)
        if not isinstance(data, bytes):
            raise UserError("the picture's file is open as text; open it with mode 'rb'")
        return _from_bytes(data, "this picture")
    raise UserError(f"cannot read a picture from {type(source).__name__}; give a file name, bytes, image or array")


def save_image(array: np.ndarray, path: str | Path) -> None:
    """Write uint8 [H, W, 3] (RGB) or [H, W] (grey) to `path`, in the format of its extension, whole or not at all.

    Raises:
        UserError: unknown extension, or the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        known = " ".join(WRITERS)
        raise UserError(f"cannot write {path.name}: unknown picture extension {path.suffix!r}; use one of {known}")
    kind, options = WRITERS[path.suffix.lower()]
    partial = path.with_name(path.name + ".part")
    try:
        Image.fromarray(array).save(partial, format=kind, **options)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}; is there such a folder, and room?") from error


def is_video(source: Any) -> bool:
    """Whether a file is a film: by its first bytes, or by its extension where they tell nothing.

    Args:
        source: file name, the file's bytes, or an open binary file; anything else is none.
    """
    head, suffix = _head(source), Path(source).suffix.lower() if isinstance(source, (str, Path)) else ""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _IMAGE_BRANDS and head[8:11] != b"M4A"
    films = (b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x30\x26\xb2\x75", b"FLV\x01", b"OggS")
    if head.startswith(films) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    pictures = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
    packets = head[:1] == b"G" and head[188:] == b"G"  # of a transport stream
    return (packets or suffix in VIDEO_SUFFIXES) and not head.startswith(pictures)


def _head(source: Any) -> bytes:
    """The first bytes of a file; none of what cannot be read or is no file."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source[:HEAD])
    try:
        if isinstance(source, (str, Path)):
            with Path(source).open("rb") as file:
                return file.read(HEAD)
        if hasattr(source, "read") and source.seekable():
            start = source.tell()
            head = source.read(HEAD)
            source.seek(start)
            return head if isinstance(head, bytes) else b""
    except (OSError, ValueError):
        pass
    return b""


def _from_path(path: Path) -> np.ndarray:
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a picture in it")
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path.name} is larger than {MAX_BYTES / 1e6:.0f} MB; reduce the picture first")
        if is_video(path):
            raise UserError(f"{path.name} is a video, not a picture; analyse it as a video")
        if path.suffix.lower() in SOUND_SUFFIXES:
            raise UserError(f"{path.name} is a sound file, not a picture; a model of voice and face can read it")
        with path.open("rb") as file:
            return _from_file(file, path.name)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _from_bytes(data: bytes, name: str) -> np.ndarray:
    if len(data) > MAX_BYTES:
        raise UserError(f"{name} is larger than {MAX_BYTES / 1e6:.0f} MB; reduce it first")
    return _from_file(io.BytesIO(data), name)


def _from_file(file: BinaryIO, name: str) -> np.ndarray:
    head = file.read(16)
    if not head:
        raise UserError(f"{name} is empty (0 bytes); was it copied completely?")
    file.seek(0)
    Image.init()
    try:
        image = Image.open(file, formats=[f for f in FORMATS if f in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(_too_large(name)) from error
    except Exception as error:  # a decoder meets damaged bytes with any exception type
        if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
            raise UserError(f"{name} is a HEIC picture, which cannot be read here; save it as JPEG or PNG") from error
        raise UserError(f"{name} is no picture that can be read, or is damaged; use JPEG, PNG or WebP") from error
    with image:
        return _decode(image, name)


def _decode(image: Image.Image, name: str) -> np.ndarray:
    """Pixels of an opened image; its size is checked before anything is decoded."""
    check_size(*image.size, name)
    try:
        image.load()
        return np.array(_to_rgb(_upright(image)))
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"not enough memory for {name}; reduce the picture first") from error
    except Exception as error:  # a decoder meets damaged bytes with any exception type
        raise UserError(f"{name} is damaged or incomplete ({error}); get it again or save it anew") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an unreadable EXIF block says nothing about the orientation: the pixels stand
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_levels(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> np.ndarray:
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (2, 3, 4)):
        hint = "; move the channels to the end" if array.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise UserError(f"an array of shape {shape} is no picture; expected [H, W] or [H, W, 3]{hint}")
    check_size(array.shape[1], array.shape[0], "the array")
    array = np.ascontiguousarray(_levels(array))
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    return np.array(_to_rgb(Image.fromarray(array)))


def _levels(array: np.ndarray) -> np.ndarray:
    """8-bit levels of any real values, by the module's rule for white."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif":
        raise UserError(f"a picture cannot have values of type {array.dtype}; use 8-bit levels")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError("the picture has values that are not finite (NaN or infinity); replace them first")
    fractions = array.dtype.kind in "bf"
    whites = (65535,) if array.dtype.kind == "u" and array.dtype.itemsize == 2 else (1, 255, 65535)[not fractions :]
    white = next((w for w in whites if high <= w), None)
    if low < 0 or white is None:
        raise UserError(f"the picture has values from {low:g} to {high:g}; scale them to 0...1 or 0...255 first")
    scaled = array.astype(np.float32) * (255 / white)
    return np.rint(scaled).astype(np.uint8)


def check_size(width: int, height: int, name: str) -> None:
    """Raises `UserError` for a picture, or film, of more than `MAX_PIXELS` or a side of less than `MIN_SIDE`."""
    if width * height > MAX_PIXELS:
        raise UserError(f"{_too_large(name)} (it has {width}x{height})")
    if min(width, height) < MIN_SIDE:
        raise UserError(f"{name} has only {width}x{height} pixels; both sides need at least {MIN_SIDE}")


def _too_large(name: str) -> str:
    return f"{name} has more than {MAX_PIXELS / 1e6:.0f} megapixels; reduce it first"
