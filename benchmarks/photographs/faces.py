"""Faces in photographs: found by YuNet's network, cut out, and embedded by a face model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from benchmarks.photographs.models import JudgeError

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

_STRIDES = (8, 16, 32)
_MULTIPLE_PX = 32
_OVERLAP = 0.3
# Where a face's points are in 112 px (Deng et al. 2019): eyes, nose and corners of the mouth, from
# the left of the picture to its right.
_TEMPLATE_PX = 112
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Face:
    """box: left, top, right, bottom in px. points [5, 2]: eyes, nose, corners of the mouth."""

    box: tuple[float, float, float, float]
    points: Values
    score: float


@dataclass(frozen=True, kw_only=True)
class FaceSheet:
    """How a face model takes its input.

    side_px: of the square. mean, deviation: (pixel - mean) / deviation, pixels from 0 to 255.
    aligned: the points are brought to where ArcFace's are; else the box is cut out. RGB.
    """

    side_px: int
    mean: float
    deviation: float
    aligned: bool


FACE_SHEETS = {
    "sface": FaceSheet(side_px=112, mean=0.0, deviation=1.0, aligned=True),
    "arcface": FaceSheet(side_px=112, mean=127.5, deviation=127.5, aligned=True),
    "facenet": FaceSheet(side_px=160, mean=127.5, deviation=128.0, aligned=False),
}


class YuNet:
    """A face detector of YuNet's inputs and outputs, as OpenCV Zoo publishes it."""

    def __init__(self, path: Path, *, least_score: float = 0.6) -> None:
        """Raises JudgeError where the network is another."""
        self._session = _session(path)
        self._least = least_score
        names = {each.name for each in self._session.get_outputs()}
        wanted = {f"{kind}_{s}" for kind in ("cls", "obj", "bbox", "kps") for s in _STRIDES}
        if not wanted <= names:
            raise JudgeError(
                f"{path}: expected a detector with YuNet's outputs {sorted(wanted)}, "
                f"found {sorted(names)}"
            )
        shape = self._session.get_inputs()[0].shape
        self._side = shape[-1] if isinstance(shape[-1], int) else None

    def faces(self, picture: Pixels) -> list[Face]:
        """The faces of a picture [h, w, 3], the surest first."""
        scale, padded = self._padded(picture)
        name = self._session.get_inputs()[0].name
        inputs = padded[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)  # BGR, 0 to 255
        names = [each.name for each in self._session.get_outputs()]
        found = dict(zip(names, self._session.run(names, {name: inputs}), strict=True))
        listed = [
            face
            for stride in _STRIDES
            for face in _decoded(found, stride, padded.shape[1] // stride, self._least, scale)
        ]
        return _apart(sorted(listed, key=lambda face: -face.score))

    def _padded(self, picture: Pixels) -> tuple[float, Pixels]:
        """The picture in the network's size, in the upper left corner, and how much smaller."""
        height, width = picture.shape[:2]
        side = self._side or -(-max(height, width) // _MULTIPLE_PX) * _MULTIPLE_PX
        scale = min(1.0, side / max(height, width))
        if scale < 1:
            size = (round(width * scale), round(height * scale))
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
        padded = np.zeros((side, side, 3), np.uint8)
        padded[: picture.shape[0], : picture.shape[1]] = picture
        return scale, padded


class FaceModel:
    """An ONNX network from a face to an embedding."""

    def __init__(self, path: Path, sheet: FaceSheet) -> None:
        self._session, self._sheet = _session(path), sheet

    def embeddings(self, picture: Pixels, faces: Sequence[Face]) -> Values:
        """Of each face [faces, width], of unit length."""
        name = self._session.get_inputs()[0].name
        found = []
        for face in faces:
            crop = cut_out(picture, face, self._sheet).astype(np.float32)
            inputs = (crop - self._sheet.mean) / self._sheet.deviation
            (embedding, *_) = self._session.run(None, {name: inputs.transpose(2, 0, 1)[None]})
            vector = np.asarray(embedding, np.float64).reshape(-1)
            found.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
        return np.stack(found) if found else np.zeros((0, 0))


def cut_out(picture: Pixels, face: Face, sheet: FaceSheet) -> Pixels:
    """The face as its model takes it, [side, side, 3]; black beyond the picture."""
    side = (sheet.side_px, sheet.side_px)
    image = Image.fromarray(picture)
    if not sheet.aligned:
        return np.asarray(image.transform(side, Image.Transform.EXTENT, face.box, _BILINEAR))
    template = _TEMPLATE * sheet.side_px / _TEMPLATE_PX
    matrix = similarity(template, face.points)
    data = (*matrix[0], *matrix[1])
    return np.asarray(image.transform(side, Image.Transform.AFFINE, data, _BILINEAR))


_BILINEAR = Image.Resampling.BILINEAR


def similarity(source: Values, target: Values) -> Values:
    """The turn, scale and shift [2, 3] that bring points nearest to others (Umeyama 1991)."""
    ours, theirs = source - source.mean(axis=0), target - target.mean(axis=0)
    left, values, right = np.linalg.svd(theirs.T @ ours)
    signs = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / np.square(ours).sum()
    shift = target.mean(axis=0) - scale * turn @ source.mean(axis=0)
    return np.hstack([scale * turn, shift[:, None]])


def _decoded(
    found: dict[str, Any], stride: int, columns: int, least: float, scale: float
) -> list[Face]:
    """A stride's faces in the picture's own px."""
    parts = {kind: np.asarray(found[f"{kind}_{stride}"], np.float64)[0]
             for kind in ("cls", "obj", "bbox", "kps")}  # fmt: skip
    scores = np.sqrt(parts["cls"].clip(0, 1) * parts["obj"].clip(0, 1)).reshape(-1)
    faces = []
    for index in np.flatnonzero(scores >= least):
        corner = np.array([index % columns, index // columns], np.float64)
        center = (corner + parts["bbox"][index, :2]) * stride
        half = np.exp(parts["bbox"][index, 2:]) * stride / 2
        box = np.concatenate([center - half, center + half]) / scale
        points = (parts["kps"][index].reshape(5, 2) + corner) * stride / scale
        left, top, right, bottom = map(float, box)
        faces.append(
            Face(box=(left, top, right, bottom), points=points, score=float(scores[index]))
        )
    return faces


def _apart(faces: list[Face]) -> list[Face]:
    """Without those that overlap a surer one."""
    kept: list[Face] = []
    for face in faces:
        if all(_overlap(face.box, other.box) <= _OVERLAP for other in kept):
            kept.append(face)
    return kept


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / max(sum(areas) - shared, 1e-9)


def _session(path: Path) -> Any:
    try:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's own, of which it exports no common class.
        raise JudgeError(f"{path} is no ONNX model that can be opened here: {error}") from error
