"""The demonstration sets as preprocess and merge leave them, made when a notebook asks for them."""

import os
from collections.abc import Sequence

from synprep import demo, merge, pairing, planning, preprocess
from synprep.params import Merge, Preprocess
from synprep.paths import resolve


def make_missing(paths: Sequence[str]) -> None:
    """Make the processed and merged demonstration sets that are asked for and missing.

    Parameters
    ----------
    paths : sequence of str
        Absolute paths of tables or of their folders; those that are not of a demonstration set are left
        alone.
    """
    for name in demo.SETS:
        if _is_missing(f"data/{name}/processed", paths):
            p = Preprocess(**demo.parameters(name))
            demo.make_missing(p, show_progress=False)
            preprocess.run(planning.make(pairing.find(p), p, show_progress=False), p, show_progress=False)
    if _is_missing(demo.MERGED, paths):
        make_missing(Merge().meta_list)
        merge.run(Merge(), show_progress=False)


def _is_missing(folder: str, paths: Sequence[str]) -> bool:
    folder = resolve(folder)
    meta_path = os.path.join(folder, "meta.csv")
    return bool({folder, meta_path} & {*paths}) and not os.path.exists(meta_path)
