"""Multipart forms, read in memory: a photo never touches a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from server.problem import Problem
from server.routes.bodies import MAX_PEOPLE


class _InMemory(MultiPartParser):
    """Starlette's parser, which writes what is over 1 MiB to a file unless it is told not to."""

    spool_max_size = 2**62


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A form's files by field, in their order, and its words."""

    files: dict[str, list[bytes]]
    words: dict[str, str]


FILE = {"type": "string", "format": "binary"}


def form(required: Sequence[str], properties: Mapping[str, Any], **encoding: Any) -> dict[str, Any]:
    """What a route's OpenAPI says of the form that it reads itself."""
    schema = {"type": "object", "required": list(required), "properties": dict(properties)}
    content = {"schema": schema, **({"encoding": encoding} if encoding else {})}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": content}}}


async def upload_of(request: Request) -> Upload:
    """Read a form. Raises Problem 400 for what is none."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise Problem(415, "content_type", "send multipart/form-data")
    parser = _InMemory(
        request.headers, request.stream(), max_files=MAX_PEOPLE, max_fields=100,
        max_part_size=64 * 1024,
    )  # fmt: skip
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        raise Problem(400, "form", "this is no valid multipart form") from error
    files: dict[str, list[bytes]] = {}
    words: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name.removesuffix("[]"), []).append(await value.read())
        else:
            words[name.removesuffix("[]")] = value
    await form.close()
    return Upload(files=files, words=words)
