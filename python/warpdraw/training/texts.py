"""The texts to train on: a file, or the files of a folder, as UTF-8, and the part of them that is held out."""

from __future__ import annotations

from pathlib import Path


def read_texts(path: str | Path) -> list[str]:
    """The text of a file, or the texts of all files in a folder and below it, by name; hidden ones are left out.

    Raises ValueError for a file that is not text (with the offset of the first byte that is NUL or not UTF-8) and
    where there is no text at all, OSError for a path that cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "b.txt").write_text("two")
    ...     _ = (Path(folder) / "a.txt").write_text("one")
    ...     read_texts(folder)
    ['one', 'two']
    """
    root = Path(path)
    files = _files(root) if root.is_dir() else [root]
    texts = [text for file in files if (text := _read(file)).strip()]
    if not texts:
        what = f"{len(files)} empty files" if root.is_dir() else "an empty file"
        raise ValueError(f"{root}: expected text to train on, got {what if files else 'a folder without files'}")
    return texts


def _files(root: Path) -> list[Path]:
    def hidden(file: Path) -> bool:
        return any(part.startswith(".") for part in file.relative_to(root).parts)

    return sorted(file for file in root.rglob("*") if file.is_file() and not hidden(file))


def _read(file: Path) -> str:
    content = file.read_bytes()
    if (at := content.find(b"\0")) >= 0:
        raise ValueError(f"{file}: expected text, got a NUL byte at offset {at}")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ValueError(f"{file}: expected UTF-8, got byte 0x{byte:02x} at offset {error.start}") from None


def lines_of(texts: list[str]) -> list[str]:
    """The lines of all texts, without their ends; blank ones are left out.

    >>> lines_of(["abhay\\n\\nasha\\n", "binod"])
    ['abhay', 'asha', 'binod']
    """
    return [line for text in texts for line in text.splitlines() if line.strip()]


def split_texts(texts: list[str], held_out: float) -> tuple[list[str], list[str]]:
    """The texts without, and the texts of, the share `held_out` of all characters, at their end.

    >>> split_texts(["abcd", "efgh"], 0.25)
    (['abcd', 'ef'], ['gh'])
    """
    characters = sum(map(len, texts))
    left = characters - round(characters * held_out)
    kept, rest = [], []
    for text in texts:
        kept.append(text[:left])
        rest.append(text[left:])
        left = max(0, left - len(text))
    return [text for text in kept if text], [text for text in rest if text]


def split_lines(lines: list[str], held_out: float) -> tuple[list[str], list[str]]:
    """The lines without, and the lines of, the share `held_out` of them, at their end.

    >>> split_lines(["abhay", "asha", "binod", "chitra"], 0.25)
    (['abhay', 'asha', 'binod'], ['chitra'])
    """
    kept = len(lines) - round(len(lines) * held_out)
    return lines[:kept], lines[kept:]
