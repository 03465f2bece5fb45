"""Reference photos: the released transforms, and every kind of picture file."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from runtime import Identity, ReferenceImageError
from runtime.inputs.photo import load_reference, reference_pixels
from tests.paths import GOLDEN

TRANSFORMS = np.load(GOLDEN / "ref_transforms.npz")
SIZES = sorted({name.split(".")[0] for name in TRANSFORMS})
CLIP_IMAGE = np.load(GOLDEN / "clip_image.npz")
# What openai/clip-vit-large-patch14 normalizes with.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BILINEAR = Image.Resampling.BILINEAR
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.mark.parametrize("side", [64, 112])
@pytest.mark.parametrize("size", SIZES)
def test_padding_and_resizing_are_the_released_ones(size: str, side: int) -> None:
    image = np.ascontiguousarray(TRANSFORMS[f"{size}.in"].transpose(1, 2, 0))
    found = np.rint(reference_pixels(image, side, side, ZERO, ONE) * 255)
    difference = np.abs(found - TRANSFORMS[f"{size}.out{side}_u8"])
    # Exact halves round by the last bit of the filter's weights, which Pillow keeps in double.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("side", [96, 224, 256])
def test_the_encoders_input_is_the_released_one(side: int) -> None:
    images = CLIP_IMAGE[f"r{side}.pixels_u8"].transpose(0, 2, 3, 1)
    found = np.stack([reference_pixels(image, side, 224, CLIP_MEAN, CLIP_STD) for image in images])
    # Filter positions are fp32 there and double here: 1.5e-5 px (half an ulp at 256) on each axis,
    # times the steepest slope, 1 / 0.261 per px, makes 1.2e-4 at most.
    expected = CLIP_IMAGE[f"r{side}.pre_sample"]
    np.testing.assert_allclose(found[..., 100:132, 100:132], expected, atol=1.2e-4)
    stats = [found.mean(dtype=float), found.std(dtype=float), found.min(), found.max()]
    np.testing.assert_allclose(stats, CLIP_IMAGE[f"r{side}.pre_stats"], atol=1.2e-4)


@pytest.mark.parametrize("size", [(700, 300), (300, 700), (301, 600), (512, 512)])
def test_padding_in_blocks_is_padding_the_whole_photo(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    rows, columns = max(size[1] - size[0], 0) // 2, max(size[0] - size[1], 0) // 2
    padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0))).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(plane).resize((512, 512), Image.Resampling.BILINEAR))
        for plane in np.ascontiguousarray(padded.transpose(2, 0, 1))
    ]
    expected = (np.rint(np.stack(planes)) / 255).astype(np.float32)
    np.testing.assert_array_equal(reference_pixels(image, 512, 512, ZERO, ONE), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("size", [(1, 1), (7, 3)])
def test_every_picture_mode_becomes_rgb(mode: str, size: tuple[int, int]) -> None:
    assert load_reference(Image.new(mode, size)).shape == (size[1], size[0], 3)


def test_transparency_lies_on_white() -> None:
    assert (load_reference(Image.new("RGBA", (2, 2), (0, 0, 0, 0))) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    # White is 65535 = 255 * 257: a level k * 257 is k, and not k * 257 / 256.
    levels = np.array([[0, 257, 32768], [200 * 257, 254 * 257, 65535]], np.uint16)
    Image.fromarray(levels).save(path)
    assert load_reference(path)[..., 0].tolist() == [[0, 1, 128], [200, 254, 255]]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(path, exif=exif)
    assert load_reference(path).shape == (4, 2, 3)


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    path = tmp_path / "blinking.gif"
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert load_reference(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
def test_an_unreadable_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "him.png"
    path.write_bytes(content)
    with pytest.raises(ReferenceImageError, match=r"him\.png"):
        load_reference(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReferenceImageError, match=r"nobody\.png"):
        load_reference(tmp_path / "nobody.png")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros((1, 16385, 3), np.uint8),
        Image.new("RGB", (0, 0)),
        Image.new("L", (16385, 1)),
        None,
    ],
)
def test_what_is_no_photo_is_refused(image: object) -> None:
    with pytest.raises(ReferenceImageError):
        load_reference(image)


def test_a_truncated_photo_is_named(tmp_path: Path) -> None:
    path = tmp_path / "him.jpg"
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ReferenceImageError, match=r"him\.jpg"):
        load_reference(path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (40, 40)).save(path)
    for limit in (1000, 100):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ReferenceImageError, match=r"bomb\.png"):
            load_reference(path)


def test_floats_count_to_255_and_holes_are_black() -> None:
    values = np.array([[0, 100.4], [300, np.nan]], np.float32)
    assert load_reference(Image.fromarray(values))[..., 0].tolist() == [[0, 100], [255, 0]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"]),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_any_noise_in_any_mode_becomes_a_picture(mode: str, height: int, width: int) -> None:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    # Pillow converts RGBA to these only by way of RGB.
    image = (
        rgba.convert("RGB").convert(mode)
        if mode in ("CMYK", "YCbCr", "HSV")
        else rgba.convert(mode)
    )
    loaded = load_reference(image)
    assert loaded.shape == (height, width, 3)
    assert loaded.dtype == np.uint8


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([16, 33, 64]))
def test_any_size_gives_finite_pixels_in_range(height: int, width: int, resolution: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels = reference_pixels(image, resolution, 32, ZERO, ONE)
    assert pixels.shape == (3, 32, 32)
    # A triangle filter's weights are positive and sum to one, up to rounding.
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6


BOUNDED = settings(max_examples=25, deadline=None, derandomize=True)
SIDES = st.integers(1, 40)


def _noise(height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(height * 41 + width)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


@BOUNDED
@given(SIDES, SIDES, st.sampled_from(["PNG", "BMP", "TIFF", "TGA", "WebP"]))
def test_a_file_that_loses_nothing_is_the_picture_it_was_made_of(
    height: int, width: int, kind: str
) -> None:
    pixels, stream = _noise(height, width), io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, lossless=True)
    for source in (stream.getvalue(), io.BytesIO(stream.getvalue()), pixels):
        np.testing.assert_array_equal(load_reference(source), pixels)


@BOUNDED
@given(SIDES, SIDES, st.sampled_from(["PNG", "JPEG", "TIFF"]))
def test_a_photo_stands_as_its_camera_says(height: int, width: int, kind: str) -> None:
    """0 and 9 are no orientations. Pillow's own turn is the expected one."""
    for orientation in range(10):
        exif, stream = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.fromarray(_noise(height, width)).save(stream, kind, exif=exif)
        with Image.open(stream) as photo:
            expected = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
        np.testing.assert_array_equal(load_reference(stream.getvalue()), expected)


@BOUNDED
@given(SIDES, SIDES)
def test_what_shines_through_is_white(height: int, width: int) -> None:
    pixels = _noise(height, width, 4)
    alpha = pixels[..., 3:] / 255
    found = load_reference(Image.fromarray(pixels)).astype(float)
    # Pillow mixes in whole numbers: one level off at most, and half of one for rounding.
    assert np.abs(found - (alpha * pixels[..., :3] + (1 - alpha) * 255)).max() <= 1.5


@BOUNDED
@given(SIDES, SIDES, st.sampled_from([16, 33]))
def test_a_mirrored_photo_gives_mirrored_pixels(height: int, width: int, resolution: int) -> None:
    """Padding and both filters know no left or right."""
    image = _noise(height, width)
    expected = reference_pixels(image, resolution, 32, ZERO, ONE)
    # A half may round either way in the first of the two filters.
    level = 1.01 / 255
    found = reference_pixels(image[:, ::-1], resolution, 32, ZERO, ONE)[:, :, ::-1]
    np.testing.assert_allclose(found, expected, atol=level)
    turned = reference_pixels(image[::-1], resolution, 32, ZERO, ONE)[:, ::-1]
    np.testing.assert_allclose(turned, expected, atol=level)
    lying = reference_pixels(image.transpose(1, 0, 2), resolution, 32, ZERO, ONE)
    np.testing.assert_allclose(lying.transpose(0, 2, 1), expected, atol=level)


@BOUNDED
@given(
    side=st.integers(2, 40),
    missing=st.integers(0, 20),
    lying=st.booleans(),
    resolution=st.sampled_from([16, 33]),
)
def test_a_photo_is_padded_with_black_on_both_sides(
    *, side: int, missing: int, lying: bool, resolution: int
) -> None:
    """The odd pixel is left out, as released."""
    image = _noise(side, max(1, side - missing))
    image = image.transpose(1, 0, 2) if lying else image
    height, width = image.shape[:2]
    rows, columns = max(width - height, 0) // 2, max(height - width, 0) // 2
    whole = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    np.testing.assert_array_equal(
        reference_pixels(image, resolution, 32, ZERO, ONE),
        reference_pixels_of_a_square(whole, resolution),
    )


def reference_pixels_of_a_square(image: npt.NDArray[np.uint8], resolution: int) -> Any:
    """The same of what is a square but for one row or column, by Pillow alone."""

    def resized(plane: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
        return np.asarray(Image.fromarray(plane).resize((side, side), BILINEAR))

    square = [resized(plane.astype(np.float32), resolution) for plane in image.transpose(2, 0, 1)]
    planes = [np.float32(np.clip(np.rint(plane), 0, 255) / 255) for plane in square]
    return np.stack([resized(np.asarray(plane), 32) for plane in planes])


@BOUNDED
@given(st.integers(0, 255), SIDES, st.sampled_from([16, 32, 33]))
def test_a_gray_wall_stays_gray_and_is_normalized(level: int, side: int, resolution: int) -> None:
    image = np.full((side, side, 3), level, np.uint8)
    found = reference_pixels(image, resolution, 32, CLIP_MEAN, CLIP_STD)
    for plane, mean, std in zip(found, CLIP_MEAN, CLIP_STD, strict=True):
        np.testing.assert_allclose(plane, (level / 255 - mean) / std, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_a_foreign_file_is_no_identity(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "him.safetensors"
    path.write_bytes(content)
    with pytest.raises(ReferenceImageError, match=r"him\.safetensors"):
        Identity.load(path)


def test_damaged_and_oversized_metadata_is_ignored(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    photo.save(tmp_path / "garbage.png", exif=b"Exif\0\0" + b"\xff" * 20)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("comment", "x" * (2 << 20), zip=True)
    photo.save(tmp_path / "long_text.png", pnginfo=texts, icc_profile=b"no profile" * 10)
    content = bytearray((tmp_path / "long_text.png").read_bytes())
    content[content.index(b"iCCP") + 12] ^= 255  # its checksum is wrong now
    (tmp_path / "bad_sum.png").write_bytes(content)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(load_reference(path), pixels)


def test_a_jpegs_resolution_in_words_is_ignored_and_its_turn_is_not(tmp_path: Path) -> None:
    entries = [(0x0112, 3, 1, struct.pack(">HH", 6, 0)), (282, 2, 4, b"72\0\0")]
    block = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries))
    block += b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries)
    path = tmp_path / "him.jpg"
    Image.new("RGB", (4, 2)).save(path, exif=b"Exif\0\0" + block + b"\0" * 36, comment=b"\xff" * 99)
    assert load_reference(path).shape == (4, 2, 3)


def test_a_jpegs_segment_that_says_its_colors_is_kept_and_other_programs_are_not(
    tmp_path: Path,
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    content = stream.getvalue()
    jfif_end = 4 + struct.unpack(">H", content[4:6])[0]
    # Adobe's: the three planes are red, green and blue, not luma and chroma.
    adobe = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe\0\x64\0\0\0\0\0"
    # Photoshop's, cut off in the middle: nobody's business.
    photoshop = b"\xff\xed" + struct.pack(">H", 24) + b"Photoshop 3.0\x008BIM\x03\xed\0\0"
    plain, as_rgb = tmp_path / "plain.jpg", tmp_path / "rgb.jpg"
    plain.write_bytes(content)
    as_rgb.write_bytes(content[:2] + adobe + photoshop + content[jfif_end:])
    with Image.open(io.BytesIO(content[:2] + adobe + content[jfif_end:])) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(load_reference(as_rgb), expected)
    assert np.abs(expected.astype(int) - load_reference(plain)).mean() > 20


def test_a_phones_108_megapixels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "phone.png"
    Image.new("1", (12000, 9000), 1).save(path)
    assert load_reference(path).shape == (9000, 12000, 3)


@pytest.mark.parametrize("long", [(1, 16384), (16384, 100)])
def test_a_narrow_strip_is_refused_by_its_size(long: tuple[int, int]) -> None:
    with pytest.raises(ReferenceImageError, match=rf"{long[0]}x{long[1]} px.*crop"):
        load_reference(Image.new("L", long))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (np.array([[0, 4095]], np.uint16), [0, 255]),
        (np.array([[0, 65535]], np.uint16), [0, 255]),
        (np.array([[0, 255]], np.uint16), [0, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 2**31 - 1]], np.int32), [0, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 65535]], np.float32), [0, 255]),
    ],
)
def test_every_depth_reaches_from_black_to_white(
    levels: npt.NDArray[Any], expected: list[int]
) -> None:
    assert load_reference(Image.fromarray(levels))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "levels",
    [
        np.full((2, 2), 1e-4, np.float32),
        np.full((2, 2), np.nan, np.float32),
        np.full((2, 2), 1e12, np.float32),
        np.full((2, 2), 100_000, np.int32),
        np.full((2, 2), -5, np.float32),
        np.linspace(-1, 1, 4, dtype=np.float32).reshape(2, 2),
        np.array([[0, -200]], np.int32),
    ],
)
def test_levels_that_would_look_black_are_refused(levels: npt.NDArray[Any]) -> None:
    with pytest.raises(ReferenceImageError, match="level"):
        load_reference(Image.fromarray(levels))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 99, "HEIC"),
        (struct.pack(">I", 24) + b"ftypqt  \0\0\0\0" + b"\0" * 99, "QuickTime"),
        (b"%PDF-1.7 " + b"\0" * 99, "PDF"),
        (b"\xff\x0a" + b"\0" * 99, "JPEG XL"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"<!DOCTYPE html><p>Not found", "web page"),
    ],
)
def test_what_a_file_is_instead_is_named(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "him").write_bytes(content)
    for source in (tmp_path / "him", content):
        with pytest.raises(ReferenceImageError, match=kind) as error:
            load_reference(source)
        assert " object at 0x" not in str(error.value)


def test_bytes_and_open_files_are_photos_as_often_as_they_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "him.png"
    Image.new("RGB", (3, 2), "red").save(path)
    content = path.read_bytes()
    with path.open("rb") as file:
        for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), file):
            for _ in range(2):
                assert load_reference(source).shape == (2, 3, 3)
    with path.open(encoding="latin-1") as text, pytest.raises(ReferenceImageError, match="'rb'"):
        load_reference(text)


def test_no_special_file_is_waited_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ReferenceImageError, match="no regular file"):
            load_reference(path)


def test_a_callers_exception_is_not_taken_for_a_decoders() -> None:
    class TimeLimit(OSError):
        """What a signal handler may raise while a decoder runs."""

    class Slow(Image.Image):
        def load(self) -> Any:
            raise TimeLimit

    slow = Slow()
    slow._size = (1, 1)
    with pytest.raises(TimeLimit):
        load_reference(slow)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "gif", "bmp", "tga"])
def test_mutated_photos_decode_or_are_refused(kind: str) -> None:
    random, stream = np.random.default_rng(len(kind)), io.BytesIO()
    noise = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    has_exif = kind in ("png", "jpeg", "webp", "tiff")
    Image.fromarray(noise).save(stream, kind, **({"exif": exif} if has_exif else {}))
    for _ in range(40):
        content = bytearray(stream.getvalue())
        for place in random.integers(0, len(content), 6):
            content[place] = random.integers(0, 256)
        with contextlib.suppress(ReferenceImageError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert load_reference(bytes(content)).ndim == 3


def tiff_of_32_bits(levels: list[int], sample_format: int | None) -> bytes:
    """One row of gray; sample_format: 1 without a sign, 2 with one, None untold."""
    data, count = np.array(levels, "<u4").tobytes(), len(levels)
    short = {256: count, 257: 1, 258: 32, 259: 1, 262: 1, 277: 1, 278: 1}
    tags = [(number, 3, value) for number, value in short.items()]
    tags += [(273, 4, 8), (279, 4, len(data))]
    if sample_format is not None:
        tags.append((339, 3, sample_format))
    rows = b"".join(struct.pack("<HHII", number, kind, 1, v) for number, kind, v in sorted(tags))
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    return head + struct.pack("<H", len(tags)) + rows + bytes(4)


@pytest.mark.parametrize("sample_format", [1, None])
def test_32_bits_without_a_sign_reach_white(sample_format: int | None) -> None:
    content = tiff_of_32_bits([0, 2**31, 2**32 - 1], sample_format)
    assert load_reference(content)[0, :, 0].tolist() == [0, 128, 255]


def test_32_bits_with_a_sign_below_black_are_refused() -> None:
    with pytest.raises(ReferenceImageError, match="below black"):
        load_reference(tiff_of_32_bits([0, 2**31], 2))


def test_a_damaged_checksum_of_pixels_is_an_error() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[content.index(b"IDAT") + 20] ^= 1
    with pytest.raises(ReferenceImageError, match="IDAT chunk is damaged"):
        load_reference(bytes(content))


class InSmallParts(io.RawIOBase):
    """As a socket gives what has arrived."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, 50))


def test_open_files_of_every_kind_are_read_or_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    assert load_reference(InSmallParts(stream.getvalue()))[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(ReferenceImageError, match=r"stands at its end; seek\(0\) first"):
        load_reference(stream)
    stream.close()
    with pytest.raises(ReferenceImageError, match="file is closed"):
        load_reference(stream)
    with (
        (tmp_path / "new.png").open("wb") as written,
        pytest.raises(ReferenceImageError, match="not open for reading"),
    ):
        load_reference(written)


def test_a_photo_that_is_a_program_is_not_run() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "EPS")
    with pytest.raises(ReferenceImageError, match="PostScript, which is not read"):
        load_reference(stream.getvalue())
