"""Do to raw pairs what can go wrong with them, and count the warnings: the table of docs/pair_checks.md.

Run it from the project's root, `python benchmarks/pair_checks.py FOLDER=PIXEL_NM ...`: each folder has `em`
and `mask` with files `*.npy` and `*_mask.npy` that fit each other, labels 1, 2 and 3, and such pixels.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmark import print_table

from synprep._core import pair_checks

Arrays = tuple[np.ndarray, np.ndarray]
NEURONS, OTHER = (1, 3), 9


def touched(flags_xyz: np.ndarray) -> np.ndarray:
    """Flagged pixels and those that share an edge with one in their section."""
    found = flags_xyz.copy()
    found[1:] |= flags_xyz[:-1]
    found[:-1] |= flags_xyz[1:]
    found[:, 1:] |= flags_xyz[:, :-1]
    found[:, :-1] |= flags_xyz[:, 1:]
    return found


def grown(mask_xyz: np.ndarray, n: int, labels=NEURONS, where: np.ndarray | bool = True) -> np.ndarray:
    """Grow labels over background by n pixels."""
    mask_xyz = mask_xyz.copy()
    for _ in range(n):
        for label in labels:
            mask_xyz[touched(mask_xyz == label) & (mask_xyz == 0) & where] = label
    return mask_xyz


def eroded(mask_xyz: np.ndarray, n: int) -> np.ndarray:
    """Take n pixels off the neurons."""
    for _ in range(n):
        edge = [touched(mask_xyz != label) & (mask_xyz == label) for label in NEURONS]
        mask_xyz = np.where(edge[0] | edge[1], 0, mask_xyz)
    return mask_xyz


def gapless(em_xyz: np.ndarray, mask_xyz: np.ndarray) -> np.ndarray:
    """Grow neurons, and the cells around them, from bright to dark until nothing is between them."""
    cells = mask_xyz.copy()
    cells[grown(mask_xyz, 5) == 0] = OTHER
    for level in (*np.percentile(em_xyz[em_xyz > 0], range(90, 0, -10)), 0):
        cells = grown(cells, 4, (*NEURONS, OTHER), em_xyz >= level)
    return np.where(cells == OTHER, 0, cells)


def moved(em_xyz: np.ndarray, mask_xyz: np.ndarray, *shift: int) -> Arrays:
    """Move the mask; what has no partner then is cut off."""
    ends = list(zip(em_xyz.shape, shift, strict=True))
    em = em_xyz[tuple(slice(max(k, 0), n + min(k, 0)) for n, k in ends)]
    return em, mask_xyz[tuple(slice(max(-k, 0), n - max(k, 0)) for n, k in ends)]


def around(array_xyz: np.ndarray, shape: tuple[int, ...], centre_xyz: tuple[int, ...]) -> np.ndarray:
    """The part of some shape, around a voxel if that is possible."""
    sides = zip(array_xyz.shape, shape, centre_xyz, strict=True)
    starts = [min(max(at - k // 2, 0), n - k) for n, k, at in sides]
    return array_xyz[tuple(slice(start, start + k) for start, k in zip(starts, shape, strict=True))]


def fits(em: np.ndarray, mask: np.ndarray) -> Iterator[tuple]:
    """What is done to pairs that fit afterwards: name, EM, mask."""
    noise = np.random.default_rng(0).normal(size=em.shape)
    slope = np.linspace(0.6, 1.4, em.shape[0])[:, None, None]

    def as_em(values: np.ndarray) -> np.ndarray:
        return np.where(em > 0, np.clip(values, 1, 255), 0).astype(np.uint8)

    yield "as it is", em, mask
    for n in (1, 2, 3):
        yield f"labels eroded by {n}", em, eroded(mask, n)
    for n in (1, 2, 3):
        yield f"labels grown by {n}", em, grown(mask, n)
    yield "gapless labels", em, gapless(em, mask)
    for std in (20, 40):
        yield f"noise of {std} grey levels", as_em(em + std * noise), mask
    yield "brightness x 0.6 to 1.4 along x", as_em(em * slope), mask
    for axis in (0, 1):
        third = np.arange(em.shape[axis]) < em.shape[axis] // 3
        yield "a third cut out", np.where(np.expand_dims(third, tuple({0, 1, 2} - {axis})), 0, em), mask


def misfits(em: np.ndarray, mask: np.ndarray, others: list[np.ndarray]) -> Iterator[tuple]:
    """What is done to pairs that do not fit afterwards."""
    yield "flipped along x", em, mask[::-1]
    yield "flipped along y", em, mask[:, ::-1]
    yield "flipped along z", em, mask[:, :, ::-1]
    yield "turned by 180 degrees", em, mask[::-1, ::-1]
    square = (min(em.shape[:2]),) * 2 + em.shape[2:]
    at = tuple(int(np.median(axis)) for axis in np.nonzero(mask))
    em_square, mask_square = around(em, square, at), around(mask, square, at)
    yield "turned by 90 degrees", em_square, np.rot90(mask_square)
    yield "turned by 90 degrees", em_square, np.rot90(mask_square, 3)
    yield "x and y exchanged", em_square, mask_square.transpose(1, 0, 2)
    x, y = ((np.arange(n) + at[axis]) // 2 for axis, n in enumerate(em.shape[:2]))
    yield "mask scaled by 2", em, mask[x][:, y]
    yield "EM inverted", np.where(em > 0, 255 - em, 0).astype(np.uint8), mask
    for other in others:
        shape = tuple(map(min, zip(em.shape, other.shape, strict=True)))
        middle = [tuple(n // 2 for n in one.shape) for one in (em, other)]
        yield "mask of another pair", around(em, shape, middle[0]), around(other, shape, middle[1])
    for n in (2, 4, 8, 16, 32):
        for x, y in ((n, 0), (-n, 0), (0, n), (0, -n)):
            yield f"moved by {n} pixels", *moved(em, mask, x, y, 0)
    for n in (1, 2, 3, 4):
        for z in (n, -n):
            yield f"moved by {counted(n)}", *moved(em, mask, 0, 0, z)


def counted(n: int) -> str:
    """Number of sections."""
    return f"{n} section{'s' if n > 1 else ''}"


def main() -> None:
    """Print the table: for each folder, warnings of how many, and the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER=PIXEL_NM")
    folders = dict(one.rsplit("=", 1) for one in parser.parse_args().folders)
    paths = [(folder, path) for folder in folders for path in sorted(Path(folder, "em").glob("*.npy"))]
    masks = [np.load(path.parents[1] / "mask" / f"{path.stem}_mask.npy") for _, path in paths]
    found = defaultdict(lambda: defaultdict(list))
    for k, (folder, path) in enumerate(paths):
        em, others = np.load(path), masks[:k] + masks[k + 1 :]
        for name, *pair in (*fits(em, masks[k]), *misfits(em, masks[k], others)):
            found[name][folder].append(pair_checks.mask_fit(*pair, pixel_nm=float(folders[folder])))
    rows = []
    for name, by_folder in found.items():
        cells = []
        for folder in folders:
            known = [fit for fit in by_folder[folder] if fit[0] is not None]
            scores = [fit[1] for fit in known]
            n_warned = sum(not fit[0] for fit in known)
            cells += [
                f"{n_warned} of {len(known)}",
                f"{min(scores):.1f} to {max(scores):.1f}" if scores else "",
            ]
        rows.append([name, *cells])
    columns = [text for folder in folders for text in (f"{Path(folder).name}: warned", "score")]
    print_table(["what was done", *columns], rows)


if __name__ == "__main__":
    main()
