"""The seed notebook's algorithm in plain words: what the tests hold the package against."""

import numpy as np


def cutout_fraction(em_xyz, cutout_pixel_value=0):
    n_x, n_y, n_z = em_xyz.shape
    return [np.sum(em_xyz[:, :, z] == cutout_pixel_value) / (n_x * n_y) for z in range(n_z)]


def preprocess(em_xyz, mask_xyz, threshold, spacing, groups=None):
    """Tensor and row values of one chunk; `groups` are the label groups of the cut mode."""
    depth = em_xyz.shape[2]
    n_kept = depth // spacing + 1
    start = (depth - n_kept) // 2
    em_xyz = em_xyz[:, :, start : start + n_kept].copy()
    mask_xyz = mask_xyz[:, :, start : start + n_kept]
    n_cutout = 0
    for z, fraction in enumerate(cutout_fraction(em_xyz)):
        if fraction > threshold:
            em_xyz[:, :, z] = 0
            n_cutout += 1
    if groups is None:
        channels = [em_xyz]
    else:
        channels = []
        for group in groups:
            channel = np.zeros_like(em_xyz)
            for value in group:
                channel[mask_xyz == value] = em_xyz[mask_xyz == value]
            channels.append(channel)
    volumes = [float(spacing * np.sum(mask_xyz == label)) for label in (1, 3, 2)]
    return np.array([*channels, mask_xyz], dtype=np.uint8), volumes, n_cutout
