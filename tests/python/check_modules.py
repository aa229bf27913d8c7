"""Does Python load the models of every module type that this crate saves, and give the same embeddings?

    SENTENCE_BURN_SAVE_TO=DIR cargo test --test parity what_is_saved
    python tests/python/check_modules.py DIR

Needs sentence-transformers 6.2. Run by hand, never by CI. Prints the largest difference of each model from what Python
gave for the original (`tests/fixtures/modules`); exits 1 when one is over the tolerance.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "modules"
TOLERANCE = 1e-5


def main() -> None:
    torch.set_num_threads(1)
    expected = load_file(FIXTURES / "expected.safetensors")
    texts = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))["texts"]
    failed = False
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    assert len(folders) == 7, folders
    for folder in folders:
        model = SentenceTransformer(str(folder), device="cpu")
        ways = {
            "": lambda model=model: model.encode(texts, convert_to_tensor=True),
            ".query": lambda model=model: model.encode_query(texts, convert_to_tensor=True),
            ".document": lambda model=model: model.encode_document(texts, convert_to_tensor=True),
            ".short": lambda model=model: model.encode(texts, task="short", convert_to_tensor=True),
            ".doc": lambda model=model: model.encode(texts, task="doc", convert_to_tensor=True),
        }
        for suffix, encode in ways.items():
            key = folder.name + suffix
            if key not in expected:
                continue
            difference = (encode() - expected[key]).abs().max().item()
            failed |= difference > TOLERANCE
            print(f"{'ok  ' if difference <= TOLERANCE else 'FAIL'}  {key:24} max difference {difference:.2e}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
