"""synprep: from raw 3D electron-microscopy chunks around synapses to a training-ready data set."""

__version__ = "0.1.0"

__all__ = [
    "demo",
    "figures",
    "fingerprint",
    "inspection",
    "merge",
    "pairing",
    "params",
    "preprocess",
    "survey",
    "volumes",
]
