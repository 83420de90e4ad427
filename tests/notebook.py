"""Runs the notebook of the documentation from clean, as it stands there.

python -m tests.notebook     # writes its outputs into examples/decision.ipynb
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "decision.ipynb"


def read_notebook() -> Any:
    """Return the notebook as it is committed."""
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def execute(notebook: Any, folder: Path, cell_timeout_s: int = 900) -> Any:
    """Run all cells in a fresh kernel, in a folder of their own; return the notebook with outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    root = str(NOTEBOOK.parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=cell_timeout_s,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"})
    return notebook


def outputs(notebook: Any) -> list[tuple[str, str]]:
    """Return kind and text of all outputs, in order; pictures as they are encoded."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                found.append((output.name, output.text))
            else:
                data = output.get("data", {})  # a file has its kinds sorted, a kernel has not
                found += [(kind, str(data[kind])) for kind in sorted(data)]
    return found


def machine_paths(text: str) -> list[str]:
    """Return what looks like an absolute path of some machine."""
    roots = "home|root|tmp|usr|mnt|Users|private|var|opt|work"
    return re.findall(rf"(?<![\w.:/<])/(?:{roots})/[\w./-]*", text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="dcdctl-notebook-") as scratch:
        done = execute(read_notebook(), Path(scratch))
    nbformat.write(done, NOTEBOOK)  # type: ignore[no-untyped-call]
    print(f"{NOTEBOOK.name}: {NOTEBOOK.stat().st_size / 1e3:.0f} kB")
