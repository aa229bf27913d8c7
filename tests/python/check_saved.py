"""Does Python load what `save` wrote, in one file or in shards, and give the same embeddings?

    SENTENCE_BURN_SAVED=DIR cargo test --test parity saving::
    python tests/python/check_saved.py DIR [--tolerance 1e-5]

Works with sentence-transformers 5.x and 6.x, whichever is installed. Run by hand, never by CI. Prints a line a folder
with the largest difference; exits 1 when one is over the tolerance, when a tensor is missing or left over, or when the
index of the shards is not what Transformers would have written.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel


def index_faults(folder: Path) -> list[str]:
    """What of the shards' index is not as Transformers writes it for the same model."""
    ours = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    faults = [f"{kind}: {info[kind]}" for kind in ["missing_keys", "unexpected_keys"] if info[kind]]
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, max_shard_size=20_000)
        theirs = json.loads((Path(scratch) / "model.safetensors.index.json").read_text(encoding="utf-8"))
    for field in ["total_size", "total_parameters"]:
        if ours["metadata"].get(field) != theirs["metadata"].get(field):
            faults.append(f"{field} {ours['metadata'].get(field)}, Transformers {theirs['metadata'].get(field)}")
    if set(ours["weight_map"]) != set(theirs["weight_map"]):
        faults.append(f"keys {set(ours['weight_map']) ^ set(theirs['weight_map'])}")
    if set(ours["weight_map"].values()) != {path.name for path in folder.glob("model-*.safetensors")}:
        faults.append("names of files")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    expected = json.loads((arguments.folder / "expected.json").read_text(encoding="utf-8"))
    print("sentence-transformers", sentence_transformers.__version__)
    failed = False
    for name, rows in expected["embeddings"].items():
        folder = arguments.folder / name
        found = SentenceTransformer(str(folder), device="cpu").encode(expected["texts"])
        difference = float(np.abs(found - np.array(rows, dtype=np.float32)).max())
        faults = index_faults(folder) if name == "sharded" else []
        bad = difference > arguments.tolerance or bool(faults)
        failed |= bad
        print(f"{'FAIL' if bad else 'ok  '}  {name:10} max difference {difference:.2e} {'; '.join(faults)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
