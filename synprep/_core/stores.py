"""Where a volume is stored, as a parameter says it, and what tensorstore answers.

tensorstore tells errors apart by the code in front of their text, such as "NOT_FOUND: chunk ...".
"""

import difflib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import url2pathname

from synprep._core.errors import ChunkError, ParameterError, listed
from synprep._core.paths import resolve, shown

REFUSED = "the store refuses access"

# Bounds for a block: four tries within 30 s, and 60 s without a byte.
_TRIES = {"max_retries": 3, "initial_delay": "2s", "max_delay": "8s"}
_SILENT_SECONDS = 60

# tensorstore's name of each format, and the file that holds what a store says of itself.
DRIVERS = {
    "precomputed": ("neuroglancer_precomputed", "info"),
    "zarr": ("zarr", ".zarray"),
    "zarr3": ("zarr3", "zarr.json"),
    "n5": ("n5", "attributes.json"),
}
_CONVERT = "is not read: convert it to zarr or precomputed"
_REFUSED = {
    "graphene": "changes with every edit: take a flat segmentation of the version that the table is of",
    **dict.fromkeys(("h5", "hdf5", "hdf"), f"HDF5 {_CONVERT}"),
    **dict.fromkeys(("tif", "tiff"), f"TIFF {_CONVERT}"),
}
_REASONS = {
    "NOT_FOUND": "there is no such store",
    **dict.fromkeys(("PERMISSION_DENIED", "UNAUTHENTICATED"), REFUSED),
    **dict.fromkeys(("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"), "the store does not answer"),
}
_ABSENT = "NOT_FOUND: chunk "

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Source:
    """What a parameter says of a volume; None or empty where the store says it."""

    path: str  # as given, FORMAT://LOCATION
    voxel_size_nm: Triple | None = None
    offset_nm: Triple | None = None  # corner of voxel 0
    axes: str = ""
    cache_mb: int = 512

    @property
    def format(self) -> str:
        """Format, such as "zarr"."""
        return self.path.partition("://")[0]

    @property
    def location(self) -> str:
        """Path or URL."""
        return self.path.partition("://")[2]

    @property
    def shown(self) -> str:
        """The path for people, and for telling volumes apart: as `paths.shown` where it is no URL."""
        is_url = "://" in self.location
        return self.path if is_url else f"{self.format}://{shown(resolve(self.location))}"

    def error(self, text: str) -> ParameterError:
        """Error about what the parameter says, or what the store holds."""
        return ParameterError(f"{self.path}: {text}")


# What the parameter says


def parse(spec: str | Mapping[str, Any], cache_mb: int = 512) -> Source:
    """Read what a parameter says of a volume, whose form `volume_settings` has checked.

    Raises a ParameterError that says how to write it if its format or location is not read.
    """
    said = {"path": spec} if isinstance(spec, str) else spec
    sizes = (tuple(map(float, said[key])) if key in said else None for key in ("voxel_size_nm", "offset_nm"))
    source = Source(said["path"], *sizes, said.get("axes", ""), cache_mb)
    _refuse(source)
    return source


def _refuse(source: Source) -> None:
    """Raise a ParameterError for a format or location that is not read."""
    name, location = source.format, source.location
    suffix = Path(location).suffix.removeprefix(".").lower()
    if name in _REFUSED or suffix in _REFUSED:
        raise source.error(_REFUSED.get(name) or _REFUSED[suffix])
    if name not in DRIVERS or not location:
        near = difflib.get_close_matches(name, DRIVERS, 1)
        hint = f"; did you mean {near[0]}?" if near and location else ""
        raise source.error(f"must be FORMAT://LOCATION, with FORMAT one of {listed(DRIVERS)}{hint}")


def _kvstore(source: Source, folder: str = "") -> dict[str, Any]:
    """Where a store, or a folder below it, is, for tensorstore."""
    scheme, is_url, rest = source.location.partition("://")
    bucket, _, path = (f"{rest.rstrip('/')}/{folder.strip('/')}".rstrip("/") + "/").partition("/")
    if not is_url:
        return {"driver": "file", "path": Path(resolve(source.location), folder).as_posix() + "/"}
    if scheme == "file" and not bucket:
        return {"driver": "file", "path": Path(url2pathname(f"/{path}")).as_posix() + "/"}
    if scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{scheme}://{bucket}/{path}"}
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": path}
    if scheme == "s3":
        return {"driver": "s3", "bucket": bucket, "path": path, **_s3_options()}
    raise source.error("must have a path, or a URL: file:///..., http, https, gs or s3")


def _s3_options() -> dict[str, Any]:
    """Endpoint and credentials of the environment; anonymous where it has none."""
    environment, options = os.environ, {}
    if endpoint := environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL"):
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
        options = {"endpoint": endpoint, "aws_region": region}
    if "AWS_ACCESS_KEY_ID" in environment:
        return options | {"aws_credentials": {"type": "environment"}}
    has_profile = "AWS_PROFILE" in environment or Path("~/.aws/credentials").expanduser().exists()
    return options | {"aws_credentials": {"type": "default" if has_profile else "anonymous"}}


def packed_block(source: Source, folder: str) -> str:
    """Name of a file that cloud-volume has compressed, which tensorstore would take for absent; or empty."""
    place = _kvstore(source, folder)
    if place["driver"] != "file" or not os.path.isdir(place["path"]):
        return ""
    with os.scandir(place["path"]) as entries:
        names = [entry.name for entry in itertools.islice(entries, 10)]
    return next((name for name in names if name.endswith((".gz", ".br"))), "")


# What tensorstore answers


def tensorstore() -> ModuleType:
    """Import tensorstore, when a first volume is opened: it takes a moment."""
    for name in ("LOW_SPEED_TIME", "CONNECT_TIMEOUT"):
        os.environ.setdefault(f"TENSORSTORE_CURL_{name}_SECONDS", str(_SILENT_SECONDS))
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    import tensorstore

    return tensorstore


@lru_cache
def _context(cache_mb: int) -> Any:
    """Memory for blocks, and bounds, that the volumes of this process share."""
    retries = {f"{name}_request_retries": _TRIES for name in ("http", "gcs", "s3")}
    return tensorstore().Context({"cache_pool": {"total_bytes_limit": cache_mb << 20}, **retries})


@contextmanager
def _answering(source: Source) -> Iterator[None]:
    """Turn what tensorstore reports into an error about the store."""
    try:
        yield
    except (ValueError, IndexError, NotImplementedError) as error:
        code, _, text = _text(error).partition(": ")
        kind = _REASONS.get(code, "the store cannot be used")
        raise ChunkError(kind, text if code.isupper() else _text(error), source.path) from error


def _text(error: Exception) -> str:
    return str(error).partition(" [tensorstore_spec=")[0]


def wait(source: Source, reading: Any) -> str:
    """Wait until a box is read; returns which block is absent, or an empty text."""
    with _answering(source):
        error = reading.exception()
        if error and not str(error).startswith(_ABSENT):
            raise error
    return _text(error).removeprefix("NOT_FOUND: ") if error else ""


def read_json(source: Source, folder: str, name: str = "") -> Any:
    """Read what a store says of itself, or another JSON file in it, as it is now; None if there is none."""
    with _answering(source):
        place = tensorstore().KvStore.open(_kvstore(source, folder), context=_context(source.cache_mb))
        answer = place.result().read(name or DRIVERS[source.format][1]).result()
        return json.loads(answer.value) if answer.state == "value" else None


def open_array(source: Source, folder: str, **options: Any) -> Any:
    """Open an array for reading: absent blocks are errors; a block is not asked for twice."""
    place = {"driver": DRIVERS[source.format][0], "kvstore": _kvstore(source, folder), **options}
    strict = {"fill_missing_data_reads": False, "recheck_cached_data": False}
    with _answering(source):
        return tensorstore().open(place | strict, read=True, context=_context(source.cache_mb)).result()
