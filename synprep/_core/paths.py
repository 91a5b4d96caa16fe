"""Where relative paths start, and how paths are shown."""

import os
from pathlib import Path

import synprep


def project_root() -> Path:
    """Folder that relative paths start from.

    The first that holds `notebooks/preprocess.ipynb` and `params`: the working folder or one above it, else
    the one that the package was installed from; else the working folder.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(synprep.__file__).resolve().parents[1]):
        if is_project(folder):
            return folder
    return here


def is_project(folder: Path) -> bool:
    """Whether a folder is a project's root."""
    return (folder / "notebooks" / "preprocess.ipynb").is_file() and (folder / "params").is_dir()


def resolve(path: str) -> str:
    """Make a path absolute that is relative to the project's root or starts with ~; empty stays empty."""
    return path and os.path.abspath(project_root() / Path(path).expanduser())


def shown(path: str | os.PathLike) -> str:
    """Text of an absolute path for people: relative to the project's root when inside it, with / always."""
    root = project_root()
    inside = Path(path).is_relative_to(root)
    return (Path(path).relative_to(root) if inside else Path(path)).as_posix()
