"""Write the pictures of the docs: the largest figure of each notebook, from its stored outputs.

The random names of widgets in these are replaced, so that a notebook that shows the same is the same file.
"""

import base64
import re
from pathlib import Path

import nbformat

DOCS = Path(__file__).resolve().parent

for path in sorted((DOCS.parent / "notebooks").glob("*.ipynb")):
    if path.name.startswith("out"):
        continue
    text = path.read_text("utf-8")
    path.write_text(re.sub('"model_id": "[0-9a-f]+"', '"model_id": "0"', text), "utf-8", newline="\n")
    outputs = [out for cell in nbformat.reads(text, 4).cells for out in cell.get("outputs", [])]
    pictures = [out["data"]["image/png"] for out in outputs if "image/png" in out.get("data", {})]
    if pictures:
        (DOCS / f"{path.stem}.png").write_bytes(base64.b64decode(max(pictures, key=len)))
