"""`owner/name[@revision]` to the local folder of that repository."""

from __future__ import annotations

import re
from pathlib import Path

from engines.errors import BundleNotFoundError

_HUB_ID = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
INSTALL = "pip install huggingface_hub"


def local_bundle(bundle: str | Path) -> str | Path:
    """A bundle's local folder: what was named, or what a hub id that it is was downloaded to.

    A hub id is `owner/name`, or `owner/name@revision` with a branch, tag or commit; only a commit
    is always the same bundle. What exists here, or lies in a folder that does, is never looked for
    on the hub. Raises BundleNotFoundError where it cannot be fetched, or without huggingface_hub.
    """
    path = Path(bundle)
    found = _HUB_ID.fullmatch(path.as_posix())
    if found is None or path.exists() or path.parent.exists():
        return bundle
    repository, revision = found["repository"], found["revision"]
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise BundleNotFoundError(
            f"there is no folder {path}, and to fetch {repository} from the Hugging Face hub "
            "huggingface_hub is needed, not installed here; install it with",
            fix=INSTALL,
        ) from error
    try:
        return Path(snapshot_download(repository, revision=revision))
    except Exception as error:
        # The library raises its own errors, its client's and the system's.
        raise BundleNotFoundError(
            f"there is no folder {path}, and {repository} could not be fetched from the Hugging "
            f"Face hub ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]}); name "
            "a folder that is here, or fetch it where there is a network with",
            fix=f"hf download {repository}" + (f" --revision {revision}" if revision else ""),
        ) from error
