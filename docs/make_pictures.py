"""Write the pictures of the docs: the largest figure of each notebook, from its stored outputs."""

import base64
from pathlib import Path

import nbformat

DOCS = Path(__file__).resolve().parent

for path in sorted((DOCS.parent / "notebooks").glob("*.ipynb")):
    outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    pictures = [out["data"]["image/png"] for out in outputs if "image/png" in out.get("data", {})]
    if pictures and not path.name.startswith("out"):
        (DOCS / f"{path.stem}.png").write_bytes(base64.b64decode(max(pictures, key=len)))
