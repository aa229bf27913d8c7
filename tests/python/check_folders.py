"""Does Python load what the `train_lora` and `merge` examples wrote, and give the same embeddings as `encode`?

    cargo run --release --example train_lora -- --model BASE --train pairs.jsonl --output ADAPTER …
    cargo run --release --example encode -- --model ADAPTER --input texts.txt --output ours.npy
    cargo run --release --example merge -- --model BASE --adapter ADAPTER --output MERGED
    python tests/python/check_folders.py --base BASE --adapter ADAPTER --embeddings ours.npy --texts texts.txt \\
        [--merged MERGED] [--tolerance 1e-5]

Needs sentence-transformers 6.2 and peft 0.21 (`pip install sentence-transformers==6.2.0 peft==0.21.2`). Run by hand,
never by CI. Prints the largest difference of each way to load; exits 1 when one is over the tolerance, when a tensor is
missing or left over, or when the adapter changes nothing.

Python resolves a relative `base_model_name_or_path` against the working directory, not against the adapter folder.
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
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from sentence_transformers import SentenceTransformer


class Report:
    def __init__(self, expected: np.ndarray, tolerance: float):
        self.expected, self.tolerance, self.failed = expected, tolerance, False

    def line(self, name: str, good: bool, detail: str) -> None:
        self.failed |= not good
        print(f"{'ok  ' if good else 'FAIL'}  {name:46} {detail}")

    def compare(self, name: str, embeddings: np.ndarray) -> None:
        if embeddings.shape != self.expected.shape:
            self.line(name, False, f"shape {embeddings.shape}, expected {self.expected.shape}")
            return
        difference = float(np.abs(embeddings - self.expected).max())
        self.line(name, difference <= self.tolerance, f"max difference {difference:.2e}")


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def check_files(report: Report, folder: Path) -> None:
    """The adapter's own two files, without a model."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = PeftConfig.from_pretrained(str(folder))
    unknown = [str(w.message) for w in caught if "unexpected keyword" in str(w.message).lower()]
    report.line("adapter_config.json has no unknown field", not unknown, "; ".join(unknown) or config.peft_type.value)
    raw = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    fields = set(raw) ^ set(config.to_dict()) - {"runtime_config"}
    report.line("adapter_config.json has every field", not fields, ", ".join(sorted(fields)) or f"{len(raw)} fields")
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        metadata = file.metadata()
    report.line("adapter_model.safetensors metadata", metadata == {"format": "pt"}, str(metadata))


def check_adapter(report: Report, base: Path, adapter: Path, texts: list[str]) -> None:
    report.compare("SentenceTransformer(adapter)", load(adapter).encode(texts))

    model = load(base)
    plain = model.encode(texts)
    moved = float(np.abs(plain - report.expected).max()) if plain.shape == report.expected.shape else float("inf")
    report.line("the adapter changes the base's output", moved > 10 * report.tolerance, f"by {moved:.2e}")
    loaded = model.load_adapter(str(adapter))
    stray = sorted(loaded.missing_keys) + sorted(loaded.unexpected_keys)
    report.line("load_adapter finds every tensor", not stray, ", ".join(stray[:4]) or "none missing or left over")
    report.compare("SentenceTransformer(base).load_adapter", model.encode(texts))
    model.disable_adapters()
    report.line("disable_adapters gives the base", bool(np.array_equal(model.encode(texts), plain)), "")

    # PEFT wraps the encoder in place, so the rest of the base's pipeline stays as it is.
    model = load(base)
    wrapped = PeftModel.from_pretrained(model[0].model, str(adapter)).eval()
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        stray = sorted(set(file.keys()) ^ set(get_peft_model_state_dict(wrapped)))
    report.line("tensor names are PEFT's", not stray, ", ".join(stray[:4]))
    report.compare("PeftModel.from_pretrained", model.encode(texts))
    model[0].model = wrapped.merge_and_unload()
    report.compare("PeftModel.merge_and_unload", model.encode(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True, help="folder written by train_lora")
    parser.add_argument("--embeddings", type=Path, required=True, help="float32 .npy written by encode")
    parser.add_argument("--texts", type=Path, required=True, help="a text a line")
    parser.add_argument("--merged", type=Path, help="folder written by merge")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    torch.set_num_threads(2)

    texts = arguments.texts.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    expected = np.load(arguments.embeddings)
    assert expected.dtype == np.float32, expected.dtype
    assert len(expected) == len(texts), f"{len(expected)} embeddings for {len(texts)} texts"

    report = Report(expected, arguments.tolerance)
    check_files(report, arguments.adapter)
    check_adapter(report, arguments.base, arguments.adapter, texts)
    if arguments.merged:
        adapter_files = sorted(path.name for path in arguments.merged.glob("adapter_*"))
        report.line("the merged folder has no adapter", not adapter_files, ", ".join(adapter_files))
        report.compare("SentenceTransformer(merged)", load(arguments.merged).encode(texts))
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
