"""locate: the folder of a checkpoint, from a name or a path."""

from __future__ import annotations

import re
from pathlib import Path

from .config import CheckpointError

SHIPPED = ("tiny-target", "tiny-draft", "names-transformer")


def locate(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint: one of the package's own, a folder that exists, or a download from the hub."""
    if name_or_path in SHIPPED:
        folder = Path(__file__).parent.parent / "models" / name_or_path
        if not folder.is_dir():
            raise CheckpointError(f"{name_or_path}: not in this installation; {folder} is missing")
        return folder
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if isinstance(name_or_path, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name_or_path):
        return _download(name_or_path)
    raise CheckpointError(
        f"{name_or_path}: no such checkpoint; it must be {', '.join(SHIPPED)}, a folder, "
        "or owner/name on the Hugging Face hub"
    )


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        # Only the top folder: other formats of the same weights lie below it or are called consolidated.
        patterns, others = ["*.json", "*.safetensors"], ["*/*", "consolidated*"]
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=others))
    except Exception as error:  # whatever the network, the hub and its client may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{name}: no such folder, and not available from the Hugging Face hub ({reason})"
        ) from error
