"""Does Python's PEFT load every kind of adapter that this crate wrote, and give the same embeddings?

    python tests/python/check_peft_options.py --base BASE --folders DIR [--tolerance 1e-5]

DIR holds `texts.json`, a list of texts, and a folder per case with what was saved (`adapter_config.json` and
`adapter_model.safetensors`) and `embeddings.npy`, float32, this crate's mean pooled embeddings of the texts with that
adapter. A relative base path inside the configurations is not used.

Needs sentence-transformers 6.2 and peft 0.21 (`pip install sentence-transformers==6.2.0 peft==0.21.2`). Run by hand,
never by CI. Prints a line a case, with the largest difference; exits 1 when one is over the tolerance, when a tensor is
missing or left over, when PEFT does not know a field, or when an adapter changes nothing.

`pissa_niter_*` cannot be checked so: PEFT draws a new projection each time it loads one.
"""

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from check_folders import Report
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from transformers import AutoModel


class Base:
    def __init__(self, folder: Path, texts: list[str]):
        self.folder = folder
        tokenizer = SentenceTransformer(str(folder), device="cpu").tokenizer
        self.inputs = dict(tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))
        self.plain = self.embed(self.model())

    def model(self) -> torch.nn.Module:
        return AutoModel.from_pretrained(self.folder).eval()

    def embed(self, model: torch.nn.Module) -> np.ndarray:
        mask = self.inputs["attention_mask"][:, :, None].float()
        with torch.no_grad():
            hidden = model(**self.inputs).last_hidden_state
        return ((hidden * mask).sum(1) / mask.sum(1)).numpy()


def faults(base: Base, folder: Path, expected: np.ndarray, tolerance: float) -> tuple[list[str], str]:
    """What is wrong with a case, and its differences."""
    found = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base.model(), folder).eval()
    for message in {str(w.message) for w in caught}:
        if "unexpected keyword" in message.lower() or "missing adapter keys" in message.lower():
            found.append(message)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    # A DoRA magnitude may be written under either of its names.
    own = {name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector") for name in names}
    stray = sorted(own ^ set(get_peft_model_state_dict(model)))
    if stray:
        found.append(f"{len(stray)} tensors missing or left over, such as {stray[0]}")
    if metadata != {"format": "pt"}:
        found.append(f"metadata {metadata}")
    if expected.dtype != np.float32 or expected.shape != base.plain.shape:
        return [*found, f"embeddings.npy is {expected.dtype} {expected.shape}"], ""

    difference = float(np.abs(base.embed(model) - expected).max())
    moved = float(np.abs(base.plain - expected).max())
    merged = float(np.abs(base.embed(model.merge_and_unload()) - expected).max())
    if max(difference, merged) > tolerance:
        found.append("differs")
    if moved <= 10 * tolerance:
        found.append("changes nothing")
    return found, f"max difference {difference:.2e}, merged {merged:.2e}, from the base {moved:.2e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--folders", type=Path, required=True, help="a folder per case, and texts.json")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    base = Base(arguments.base, json.loads((arguments.folders / "texts.json").read_text(encoding="utf-8")))
    cases = sorted(path.parent for path in arguments.folders.glob("*/adapter_config.json"))
    report = Report(base.plain, arguments.tolerance)
    report.line("there are cases", bool(cases), str(len(cases)))
    for folder in cases:
        expected = np.load(folder / "embeddings.npy")
        wrong, detail = faults(base, folder, expected, arguments.tolerance)
        report.line(folder.name, not wrong, "; ".join([*wrong, detail]))
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
