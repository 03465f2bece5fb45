"""The content of a photo's file: read within bounds, named where it is no photo, freed of what is
beside its pixels."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from engines.errors import ReferenceImageError

GIVE = "give a PNG, JPEG or WebP photo"
# As large as an uncompressed picture of 16384 x 16384 px.
_MAX_FILE_NBYTES = 1 << 30
# Text this long is no path: somebody's picture as text, which must not be repeated in a message.
_LONGEST_PATH = 4096

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# What pixels need, and what says how the picture is turned.
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
_PNG_CHUNKS = {*_PNG_PIXELS, b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf"}
_JPEG_APP0, _JPEG_APP1, _JPEG_APP14, _JPEG_COMMENT, _JPEG_SCAN = 0xE0, 0xE1, 0xEE, 0xFE, 0xDA

_BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC",
    b"hevx": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF",
    b"crx ": "a Canon raw file (CR3)", b"qt  ": "a QuickTime video", b"isom": "an MP4 video",
    b"iso2": "an MP4 video", b"mp41": "an MP4 video", b"mp42": "an MP4 video",
    b"M4V ": "an MP4 video",
}  # fmt: skip
_BEGINNINGS = {
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"%PDF": "a PDF document",
    b"%!PS": "PostScript",
    b"<svg": "SVG", b"<?xml": "XML or SVG", b"<!DOCTYPE": "a web page", b"<html": "a web page",
    b"FUJIFILMCCD-RAW": "a Fujifilm raw file", b"v/1\x01": "OpenEXR", b"PK\x03\x04": "a ZIP file",
    b"\x1f\x8b": "a gzip file", b"\x1aE\xdf\xa3": "a Matroska or WebM video",
    b"version https://git-lfs": "a pointer of git-lfs, whose file was not fetched (git lfs pull)",
    b"II*\0": "TIFF or a raw file", b"MM\0*": "TIFF or a raw file", b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"8BPS": "Photoshop (PSD)",
}  # fmt: skip


def name_of(source: object) -> str:
    """What messages call a photo: its path, and never anything of what it shows."""
    if not isinstance(source, str | os.PathLike):
        return "the reference"
    text = str(source)
    if len(text) > _LONGEST_PATH or text.startswith("data:"):
        return f"the reference (text of {len(text)} characters)"
    return text


def content_of(source: str | Path | bytes | bytearray | memoryview | IO[bytes]) -> bytes:
    """All bytes of a photo's file, of a file that is open, or as they are.

    Only regular files are read, so that no device or pipe is waited on, and up to 1 GiB. Raises
    ReferenceImageError.
    """
    name = name_of(source)
    if isinstance(source, str | os.PathLike):
        content = _content_at(source, name)
    elif isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
    else:
        content = _content_of_open(source)
    if not content:
        raise ReferenceImageError(f"{name} is empty; {GIVE}")
    if len(content) > _MAX_FILE_NBYTES:
        raise _too_large(name)
    return content


def kind_of(content: bytes) -> str | None:
    """What a file is by its beginning, in words; None where that is not known."""
    if content[4:8] == b"ftyp":
        brands = [content[8:12], *(content[i : i + 4] for i in range(16, 40, 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "an MP4 file")
    start = content[:64]
    # Texts may begin with empty lines or a byte-order mark.
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next(
        (
            kind
            for mark, kind in _BEGINNINGS.items()
            if start.startswith(mark) or (mark[:1] in b"<%" and text.startswith(mark.lower()))
        ),
        None,
    )


def without_metadata(content: bytes) -> bytes:
    """The same pixels without texts, profiles and comments, whose damage would stop a decoder.

    What says how the picture is turned (EXIF) stays. A file that cannot be taken apart comes back
    as it is.
    """
    try:
        if content.startswith(_PNG):
            return _PNG + b"".join(_png_chunks(content))
        if content.startswith(_JPEG):
            return _JPEG + b"".join(_jpeg_segments(content))
    except (struct.error, IndexError):
        pass
    return content


def _content_at(path: str | os.PathLike[str], name: str) -> bytes:
    if name.startswith(("http://", "https://")):
        raise ReferenceImageError(
            f"{name} is an address on the web; download the photo and give its path or its bytes"
        )
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (what path may be any text)
            raise ReferenceImageError(f"{name} is no regular file; {GIVE}")
        # Should a pipe have taken the file's place since, it is not waited on either.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _binary())
        with open(descriptor, "rb") as file:  # noqa: PTH123
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ReferenceImageError(f"{name} is no regular file; {GIVE}")
            if status.st_size > _MAX_FILE_NBYTES:
                raise _too_large(name)
            return file.read(_MAX_FILE_NBYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ReferenceImageError | TimeoutError):
            raise
        reason = error.strerror if isinstance(error, OSError) else "no valid path"
        raise ReferenceImageError(f"{name} cannot be read ({reason}); {GIVE}") from None


def _content_of_open(file: Any) -> bytes:
    """What is left of an open file, which is put back to where it stood if it can be."""
    if getattr(file, "closed", False) is True:
        raise ReferenceImageError(
            "the reference's file is closed; open it for as long as it is read"
        )
    if _says(file, "readable") is False:
        raise ReferenceImageError("the reference's file is not open for reading; open it with 'rb'")
    where = file.tell() if _says(file, "seekable") is True and hasattr(file, "tell") else None
    parts: list[bytes] = []
    # Python's own files give nothing at their end alone, and a socket what has arrived.
    while part := file.read(_MAX_FILE_NBYTES + 1 - sum(map(len, parts))):
        if not isinstance(part, bytes):
            raise ReferenceImageError(
                f"an open file must give bytes, it gave {type(part).__name__}; open it with 'rb'"
            )
        parts.append(part)
        if not isinstance(file, io.IOBase):
            break
    if where is not None:
        file.seek(where)
        if where and not parts:
            raise ReferenceImageError("the reference's file stands at its end; seek(0) first")
    return b"".join(parts)


def _says(file: Any, question: str) -> bool | None:
    """What a file says of itself; None where it cannot be asked."""
    ask = getattr(file, question, None)
    return bool(ask()) if callable(ask) else None


def _too_large(name: str) -> ReferenceImageError:
    return ReferenceImageError(f"{name} has more than {_MAX_FILE_NBYTES >> 20} MiB; {GIVE}")


def _binary() -> int:
    return getattr(os, "O_BINARY", 0)


def _png_chunks(content: bytes) -> Iterator[bytes]:
    position = len(_PNG)
    while position + 12 <= len(content):
        (nbytes,) = struct.unpack_from(">I", content, position)
        kind, end = content[position + 4 : position + 8], position + 12 + nbytes
        whole = content[position:end]
        if kind in _PNG_CHUNKS:
            damaged = zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:])
            if damaged and kind in _PNG_PIXELS:
                # Pillow does not look at the checksum of pixels.
                raise ReferenceImageError(f"its {kind.decode()} chunk is damaged; {GIVE}")
            if not damaged:
                yield whole
        elif end > len(content) or not kind.isalpha():
            raise struct.error("this is no row of chunks")
        position = end
    yield content[position:]


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    position = len(_JPEG)
    while True:
        if content[position] != 0xFF:
            raise struct.error("this is no row of segments")
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _JPEG_SCAN:
            yield content[position:]
            return
        (nbytes,) = struct.unpack_from(">H", content, position + 2)
        whole = content[position : position + 2 + nbytes]
        if _shapes_pixels(marker, whole[4:]):
            yield whole
        position += len(whole)
        if nbytes < 2:
            raise struct.error("a segment without a length")


def _shapes_pixels(marker: int, body: bytes) -> bool:
    if marker == _JPEG_APP1:
        return body.startswith(b"Exif\0\0")
    is_metadata = _JPEG_APP0 < marker <= 0xEF or marker == _JPEG_COMMENT
    return not is_metadata or marker == _JPEG_APP14
