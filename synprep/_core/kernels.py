"""Compiled loops over all pixels of a chunk; they run outside Python's lock, so that threads work together.

Sources may be in C order (z varies fastest) or in Fortran order (x varies fastest), and slices along z.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numba
import numpy as np
from numba.core.caching import FunctionCache

_TILE = 128  # rows that are gathered before they are written, so that they stay in the cache; 8 x _WORDS
_WORDS = 16  # words of 8 bytes
_LANES = 4  # counters side by side, so that equal neighbours do not wait for each other


class _Cache(FunctionCache):
    """Compiled loops on the disk; where they cannot be read or written, they are compiled again."""

    def load_overload(self, *arguments: Any) -> Any:
        """Read; damaged bytes can raise anything, and are given up, so that new ones are written."""
        try:
            return super().load_overload(*arguments)
        except Exception:
            with suppress(Exception):
                self.flush()
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Write, if that is possible."""
        with suppress(Exception):
            super().save_overload(*arguments)


def compiled(function: Callable, **options: Any) -> Callable:
    """Compile a function when it is first called; keep the result on the disk, if that is possible."""
    dispatcher = numba.njit(nogil=True, **options)(function)
    if os.path.isabs(os.path.expanduser("~")):  # else numba would make a folder of that name here
        with suppress(RuntimeError, OSError):
            dispatcher._cache = _Cache(function)
    return dispatcher


def count(source_xyz: np.ndarray) -> np.ndarray:
    """Count the values of each section of an EM or mask, uint8; (z, 256) int64."""
    n_sections = source_xyz.shape[2]
    if is_fortran(source_xyz):
        counts = np.zeros((n_sections, _LANES, 256), dtype=np.uint32)
        _count_f(source_xyz.T, counts)
        return counts.sum(axis=1, dtype=np.int64)
    counts = np.zeros((256, n_sections), dtype=np.uint32)
    _count_c(source_xyz, counts)
    return counts.T.astype(np.int64, order="C")


def copy_and_sum(source_xyz: np.ndarray, left_out: int, out_xyz: np.ndarray) -> np.ndarray:
    """Copy the sections of an EM, uint8, into a C-ordered array, and sum values and squares on the way.

    Returns (4, z) int64, by section: number of pixels; of those that have the value `left_out`; sum of the
    values of all others; sum of their squares.
    """
    _copy(source_xyz, out_xyz)
    n_x, n_y, n_sections = out_xyz.shape
    moments = np.zeros((4, n_sections), dtype=np.int64)
    moments[0] = n_x * n_y
    _sum(out_xyz, np.uint8(left_out), moments)
    moments[2] -= moments[1] * left_out
    moments[3] -= moments[1] * left_out**2
    return moments


def copy_and_count(source_xyz: np.ndarray, table: np.ndarray, out_xyz: np.ndarray) -> np.ndarray:
    """Copy the sections of a mask, uint8, into a C-ordered array, with other values by `table`, (256,) uint8.

    Returns the number of pixels by value in the source, (256,) int64. It is fastest where all values are 0 to
    3 and stay as they are.
    """
    _copy(source_xyz, out_xyz)
    counts = np.zeros(256, dtype=np.int64)
    if np.array_equal(table[:4], np.arange(4)):
        _count_labels(out_xyz, counts)
        if counts.sum() == out_xyz.size:
            return counts
        counts[:] = 0
    _count_and_map(out_xyz, table, counts)
    return counts


def count_by_label(em_xyz: np.ndarray, mask_xyz: np.ndarray, is_blanked_z: np.ndarray) -> np.ndarray:
    """Count the intensities inside each label; (2, 5, 256) int64, C order is faster.

    Number of pixels of the sections that are not blanked and of those that are, by label (0 to 3, all others
    in row 4) and intensity.
    """
    z = np.arange(len(is_blanked_z))
    lane_z = np.where(is_blanked_z, _LANES, z % _LANES).astype(np.uint8)
    counts = np.zeros((_LANES + 1, 5 * 256), dtype=np.uint32)
    _count_by_label(em_xyz, mask_xyz, lane_z, counts)
    counts = counts.astype(np.int64).reshape(-1, 5, 256)
    return np.stack([counts[:_LANES].sum(axis=0), counts[_LANES]])


def _copy(source_xyz: np.ndarray, out_xyz: np.ndarray) -> None:
    """Copy to C order."""
    source_zyx = source_xyz.T
    if not is_fortran(source_xyz):
        np.copyto(out_xyz, source_xyz)
    elif source_zyx.flags.c_contiguous and source_zyx.shape[2] % 8 == 0 and source_zyx.ctypes.data % 8 == 0:
        _turn_words(source_zyx.view(np.uint64), out_xyz)
    else:
        _turn_bytes(source_zyx, out_xyz)


def is_fortran(array_xyz: np.ndarray) -> bool:
    """Whether x varies faster than z."""
    return abs(array_xyz.strides[0]) < abs(array_xyz.strides[2])


@compiled
def _count_c(source_xyz, counts):
    for x in range(source_xyz.shape[0]):
        for y in range(source_xyz.shape[1]):
            for z in range(source_xyz.shape[2]):
                counts[source_xyz[x, y, z], z] += 1


@compiled
def _count_by_label(em_xyz, mask_xyz, lane_z, counts):
    for x in range(em_xyz.shape[0]):
        for y in range(em_xyz.shape[1]):
            for z in range(em_xyz.shape[2]):
                label = np.uint32(min(mask_xyz[x, y, z], np.uint8(4)))  # unsigned: no test for less than 0
                counts[lane_z[z], (label << np.uint32(8)) | np.uint32(em_xyz[x, y, z])] += 1


@compiled
def _sum(em_xyz, left_out, moments):
    n_x, n_y, n_z = em_xyz.shape
    sums = np.empty((3, n_z), np.uint32)  # of one x, so that 32 bits hold them
    for x in range(n_x):
        sums[:] = 0
        for y in range(n_y):
            for z in range(n_z):
                value = em_xyz[x, y, z]
                sums[0, z] += value == left_out
                sums[1, z] += value
                sums[2, z] += np.uint32(value) * np.uint32(value)
        moments[1:] += sums


@compiled
def _count_and_map(mask_xyz, table, counts):
    for x in range(mask_xyz.shape[0]):
        for y in range(mask_xyz.shape[1]):
            for z in range(mask_xyz.shape[2]):
                value = mask_xyz[x, y, z]
                counts[value] += 1
                mask_xyz[x, y, z] = table[value]


@compiled
def _count_labels(mask_xyz, counts):
    n_x, n_y, n_z = mask_xyz.shape
    n = np.empty((4, n_z), np.uint8)
    for x in range(n_x):
        for start in range(0, n_y, 255):  # so that 8 bits hold the counts
            n[:] = 0
            for y in range(start, min(start + 255, n_y)):
                column = mask_xyz[x, y]
                for z in range(n_z):
                    for label in range(4):
                        n[label, z] += np.uint8(column[z] == label)
            for label in range(4):
                counts[label] += n[label].sum()


@compiled
def _count_f(source_zyx, counts):
    for z in range(source_zyx.shape[0]):
        for y in range(source_zyx.shape[1]):
            for x in range(source_zyx.shape[2]):
                counts[z, x % _LANES, source_zyx[z, y, x]] += 1


@compiled
def _turn_bytes(source_zyx, out_xyz):
    n_z, n_y, n_x = source_zyx.shape
    tile = np.empty((_TILE, n_z), np.uint8)
    for y in range(n_y):
        for start in range(0, n_x, _TILE):
            n_rows = min(_TILE, n_x - start)
            for z in range(n_z):
                for x in range(n_rows):
                    tile[x, z] = source_zyx[z, y, start + x]
            for x in range(n_rows):
                for z in range(n_z):
                    out_xyz[start + x, y, z] = tile[x, z]


@compiled
def _turn_words(source_zyx, out_xyz):
    """Turn blocks of 8 x 8 bytes; the words of the source hold 8 neighbours along x each."""
    n_z, n_y, n_words = source_zyx.shape
    n_blocks = (n_z + 7) // 8
    words = np.zeros((8 * n_blocks, _WORDS), np.uint64)
    turned = np.empty((_TILE, n_blocks), np.uint64)
    tile = turned.view(np.uint8)
    for y in range(n_y):
        for start in range(0, n_words, _WORDS):
            n = min(_WORDS, n_words - start)
            for z in range(n_z):
                for word in range(n):
                    words[z, word] = source_zyx[z, y, start + word]
            for block in range(n_blocks):
                for word in range(n):
                    _turn_block(
                        words[8 * block : 8 * block + 8, word], turned[8 * word : 8 * word + 8, block]
                    )
            for x in range(8 * n):
                for z in range(n_z):
                    out_xyz[8 * start + x, y, z] = tile[x, z]


@partial(compiled, inline="always")
def _turn_block(rows, out):
    """Turn a matrix of 8 x 8 bytes, a row in each word: swap quarters, then quarters of these, then bytes."""
    for k in range(4):
        out[k], out[k + 4] = _swap(rows[k], rows[k + 4], 32, 0x00000000FFFFFFFF)
    for k in (0, 1, 4, 5):
        out[k], out[k + 2] = _swap(out[k], out[k + 2], 16, 0x0000FFFF0000FFFF)
    for k in (0, 2, 4, 6):
        out[k], out[k + 1] = _swap(out[k], out[k + 1], 8, 0x00FF00FF00FF00FF)


@partial(compiled, inline="always")
def _swap(low, high, n_bits, mask):
    """Exchange bits of `low` with those of `high` under the mask (H. S. Warren, Hacker's Delight, 7-3)."""
    moved = ((low >> np.uint64(n_bits)) ^ high) & np.uint64(mask)
    return low ^ (moved << np.uint64(n_bits)), high ^ moved
