"""Fetch an export from the Hugging Face hub, named `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, into the hub's own cache.

Only what an export holds is fetched: no code, no pickles, nothing that the card shows. The small `export.json` comes first, so that
another repository is refused before its weights are on their way.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from img2seq.errors import RunError, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

PREFIX = "hf:"
MADE_FROM = "export.json"
PARTS = (
    *("config.yaml", "facts.json", "tokenizer.json", "digests.json", "decoding.json", MADE_FROM),
    *(f"checkpoints/step-*/{name}" for name in ("weights.safetensors", "state.json", "manifest.json")),
    *("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json", "parity.json"),
    *("onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"),  # of other precisions nothing is read
)
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"hf:(?P<repository>{_WORD}/(?P<name>{_WORD}))(?:@(?P<revision>{_WORD}(?:/{_WORD})*))?")
_MOST_IN_REPOSITORY, _MOST_IN_ALL = 96, 300  # characters


def is_on_hub(path: str | PathLike[str]) -> bool:
    """Return whether this is the name of an export on the hub: `hf:OWNER/NAME`, perhaps with `@REVISION`."""
    return str(path).startswith(PREFIX)


def local_folder(path: str | PathLike[str]) -> Path:
    """Return the folder of a run or an export, fetched first where it is on the hub. Raises RunError if it cannot be."""
    return fetch(str(path)) if is_on_hub(path) else Path(path)


def read_name(name: str) -> tuple[str, str | None]:
    """Return the repository and the revision that a name is of. Raises RunError for a name that the hub cannot have."""
    found = _NAME.fullmatch(name) if len(name) <= _MOST_IN_ALL else None
    if found is None or len(found["repository"]) > _MOST_IN_REPOSITORY:
        expected = "hf:OWNER/NAME or hf:OWNER/NAME@REVISION, of letters, digits, '-', '_' and '.'"
        raise RunError(f"expected {expected}; found {shown(name)}")
    if ".." in name or "--" in found["repository"] or found["name"].endswith(".git"):
        raise RunError(f"expected a name without '..' and '--' that does not end in .git; found {shown(name)}")
    return found["repository"], found["revision"]


def fetch(name: str) -> Path:
    """Return the folder where an export is after it was fetched; what the cache has already is not fetched again.

    Raises:
        RunError: if there is no such repository or revision, it is private or no export, or it can neither be fetched nor found in the cache.
    """
    folder = fetch_files(name, [MADE_FROM])
    if not (folder / MADE_FROM).is_file():
        raise RunError(f"{name}: expected a folder that `img2seq export` wrote, found none: it has no {MADE_FROM}")
    commit = f"{name.partition('@')[0]}@{folder.name}"  # the same one, whatever is pushed meanwhile
    return fetch_files(commit, PARTS, called=name)


def fetch_files(name: str, files: Sequence[str], *, called: str | None = None, instead: str = "") -> Path:
    """Return the folder of a repository's files after they were fetched. Raises RunError as `fetch`, which ends with `instead`."""
    repository, revision = read_name(name)
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise RunError(f"{name}: the hub needs huggingface_hub: pip install 'img2seq[hub]'") from None
    try:
        return _snapshot(repository, revision, files)
    except Exception as error:  # of what fetches: httpx, Xet, the disk
        raise RunError(f"{called or name}: {_why(error, repository, revision)}{instead}") from error


def _snapshot(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        """A bar where somebody watches: none in a log."""

        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **{"disable": None} | options)  # type: ignore[no-untyped-call]

    return Path(
        snapshot_download(
            repository, revision=revision, allow_patterns=list(files), library_name="img2seq", tqdm_class=Bar
        )
    )


def _why(error: BaseException, repository: str, revision: str | None) -> str:
    """Return in one line what a person can do about an error of huggingface_hub."""
    from huggingface_hub import constants, errors

    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return f"it is not whole in {cache}, and HF_HUB_OFFLINE keeps it from being fetched"
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"{hub}/{repository} has no revision {shown(revision)}"
    if isinstance(cause, errors.GatedRepoError):
        return f"{hub}/{repository} is gated: ask for access there, and set HF_TOKEN to a token of that account"
    status = cause.response.status_code if isinstance(cause, errors.HfHubHTTPError) else None
    if status in (401, 403):
        return (
            f"{hub} gives no access to {repository} ({status}): it is private, or there is no such repository; "
            "a private one needs HF_TOKEN, a token that may read it"
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f"there is no such repository at {hub}"
    if status is not None:
        return f"{hub} answers with status {status}; try again later"
    return f"it cannot be fetched from {hub} ({_short(cause)}), and {cache} does not have all of it; what has arrived stays there"


def _short(error: BaseException) -> str:
    return shown(str(error).strip().partition("\n")[0] or type(error).__name__)
