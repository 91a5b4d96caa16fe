"""Where relative paths start, what a path may be written with, and how paths are shown."""

import os
import re
from pathlib import Path

import synprep

HIDDEN = ".synprep"  # folder in an output folder, of what lets a run resume
_IS_WINDOWS = os.name == "nt"
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)

# What would make or look for a folder of that very name: a pattern of the expanded text, and the rule.
_NO_TEXT = (r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "must be text without control characters")
_WRONG = (
    _NO_TEXT,
    (r"^[\s\u200b\ufeff]|[\s\u200b\ufeff]$", "must have no blank at either end"),
    (
        r"\$(?![/\\]|$)",
        "must name environment variables that are set and not empty, as $NAME or ${NAME} (a folder with a $ "
        "in its own name: give it another name, or a link)",
    ),
    (r"^~", "must begin with ~ or ~NAME for the home of a user that there is (a folder: ./~NAME)"),
    (r"%[A-Za-z_][\w()]*%", "must have $NAME in place of %NAME%"),
    (r"^[^/\\:]{2,}:[/\\]|^[^/\\:]+@[^/\\:]+:", "must be a path of this machine, not a URL"),
)
_WRONG_HERE = (
    (r"^[A-Za-z]:", "must have no drive letter, since this is not Windows: write the path that it has here"),
    (r"\\", "must have / between folders, since this is not Windows"),
)


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
    """Make a path absolute: $NAME, ${NAME} and ~ are expanded, a relative one starts from the project's root.

    Empty stays empty, and what was resolved before stays as it is. Whether it is written well says
    `find_problem`.
    """
    return path and os.path.abspath(project_root() / _expanded(_below_root(path)))


def find_problem(path: str) -> str:
    """What is wrong with how a path is written; empty when nothing is."""
    if re.search(_NO_TEXT[0], path):
        return f"{_NO_TEXT[1]}, not {path!r}"
    text = _below_root(path)
    expanded = _expanded(text)
    meant = "" if expanded == text else f" (that is {expanded!r})"
    for pattern, rule in _WRONG if _IS_WINDOWS else (*_WRONG, *_WRONG_HERE):
        if re.search(pattern, _below_root(expanded)):
            return f"{rule}, not {path!r}{meant}"
    return ""


def _below_root(path: str) -> str:
    """Leave out what a person may not have written: the project's own folder may have any name."""
    if not os.path.isabs(path) or not Path(path).is_relative_to(root := project_root()):
        return path
    return f"./{Path(path).relative_to(root)}"


def _expanded(text: str) -> str:
    """Replace variables that are set by their values, and ~ by a home; what cannot be replaced stays."""
    named = _VARIABLE.sub(lambda found: os.environ.get(found[1] or found[2]) or found[0], text)
    return os.path.expanduser(named)


def shown(path: str | os.PathLike) -> str:
    """Text of an absolute path for people: relative to the project's root when inside it, with / always."""
    path, root = Path(path), project_root()
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
