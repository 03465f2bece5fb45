"""The TensorRT double's enums, base classes, plan format and settings.

Settings come as JSON in the environment variable TENSORRT_DOUBLE, so that they reach the processes
which a build starts. Enum members have integers of neither version: code that stores one fails.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from enum import Enum
from typing import Any

SETTINGS = "TENSORRT_DOUBLE"
MAGIC = b"tensorrt double\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How the double behaves.

    architecture: of its GPU. no_gpu: it finds none. fail: substring of an ONNX file's name -> how
    its build fails: "parser", "nothing" (returns None), "memory" (runs out of it), "crash" (the
    process dies). memory_above_level: builds above this level run out of memory. single: file name
    parts whose engines come out in single precision. drift: file name part -> factor on the
    engine's output (NaN too). layer_s: how long each layer is timed, in steps of a tenth of a
    second. unreadable_layers: the inspector tells names only. memory_nbytes: of the GPU.
    driver_cuda: the driver's CUDA version.
    """

    version: str = "11.4.0.106"
    architecture: int = 90
    no_gpu: bool = False
    fail: dict[str, str] = dataclasses.field(default_factory=dict)
    memory_above_level: int | None = None
    single: tuple[str, ...] = ()
    drift: dict[str, float] = dataclasses.field(default_factory=dict)
    layer_s: float = 0.0
    unreadable_layers: bool = False
    memory_nbytes: int = 1 << 34
    driver_cuda: int = 13000

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def to_environment(self) -> str:
        """What to put into the environment variable."""
        return json.dumps(dataclasses.asdict(self))


def settings() -> Settings:
    """The settings of now; tests change them between calls."""
    return Settings(**json.loads(os.environ.get(SETTINGS, "{}")))


class Member(Enum):
    """Members are objects without a useful integer."""

    def __int__(self) -> int:
        return 17 + list(type(self)).index(self)


class BuilderFlag(Member):
    TF32 = "TF32"


class NetworkDefinitionCreationFlag(Member):
    STRONGLY_TYPED = "STRONGLY_TYPED"


class MemoryPoolType(Member):
    WORKSPACE = "WORKSPACE"


class ProfilingVerbosity(Member):
    LAYER_NAMES_ONLY = "LAYER_NAMES_ONLY"
    DETAILED = "DETAILED"


class LayerInformationFormat(Member):
    ONELINE = "ONELINE"
    JSON = "JSON"


class ExecutionContextAllocationStrategy(Member):
    STATIC = "STATIC"
    ON_PROFILE_CHANGE = "ON_PROFILE_CHANGE"
    USER_MANAGED = "USER_MANAGED"


class DataType(Member):
    FLOAT = "FLOAT"
    HALF = "HALF"
    INT32 = "INT32"
    BOOL = "BOOL"


class LayerType(Member):
    CONSTANT = "CONSTANT"
    SHUFFLE = "SHUFFLE"


class _Severity(Member):
    INTERNAL_ERROR = "INTERNAL_ERROR"
    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"
    VERBOSE = "VERBOSE"


class ILogger:
    """Base of loggers."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = tuple(_Severity)

    def __init__(self) -> None:
        self._initialized = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError("a logger must say what it does with a message")


def say(logger: Any, severity: Any, text: str) -> None:
    """Log; a logger whose base was never initialized crashes the real one too."""
    assert logger._initialized
    logger.log(severity, text)


class IHostMemory(bytes):
    """Bytes that TensorRT owns."""

    @property
    def nbytes(self) -> int:
        return len(self)


def packed(header: dict[str, Any], onnx: bytes) -> IHostMemory:
    """A plan: header and model, with a digest that a truncated one does not fit."""
    head = json.dumps(header).encode()
    body = len(head).to_bytes(8, "little") + head + onnx
    return IHostMemory(MAGIC + hashlib.sha256(body).digest() + body)


def unpacked(plan: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Header and model of a whole plan, else None."""
    digest, body = plan[len(MAGIC) : len(MAGIC) + 32], plan[len(MAGIC) + 32 :]
    if not plan.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        return None
    end = 8 + int.from_bytes(body[:8], "little")
    return json.loads(body[8:end]), body[end:]
