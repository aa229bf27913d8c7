#!/usr/bin/env python3
"""sentence-burn beside what one would use instead, on the same model and texts, in one sitting.

    python3 benches/compare.py --model all-MiniLM-L6-v2 --peers peers.py --json speed.json --svg benches/speed.svg

PEERS is a script that prints lines of JSON; it is started as `peers.py encode|latency|train --model MODEL --runs N`:

    encode    {"engine": "torch" or "onnxruntime", "mix": "short", "tokens_per_s": …} for each file of texts
    latency   {"engine": "torch", "one_text_ms": …, "cold_start_s": …, "peak_rss_mb": …}
    train     {"engine": "torch+peft", "loss": "mnrl" or "cached-mnrl", "batch": …, "pairs_per_s": …, "peak_rss_mb": …}

DATA holds texts-short.txt, texts-mixed.txt and texts-long.txt, a text a line, and train-pairs.jsonl, an
{"anchor", "positive"} a line. Without --peers it times sentence-burn alone.

Peers and sentence-burn take turns, each once a round, when the machine is idle; the best of all rounds counts. The table goes
to stdout, in Markdown, with a warning for each run that had no machine for itself. For Linux and macOS, on Python 3.9 and its
standard library alone.
"""
import argparse, html, json, math, os, platform, shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIXES = ("short", "mixed", "long")
ENGINES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "sentence-burn": "sentence-burn"}
OURS = "sentence-burn"
JOBS = ("encode", "latency", "load", "train", "start")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
# What is compared: a name, its unit, and whether more or less of it is better. The cold start of sentence-burn is the whole
# life of a process that encodes one text; the peers tell theirs themselves.
COMPARED = {
    **{f"encode/{mix}": (f"encoding, {mix} texts", "tokens/s", "more") for mix in MIXES},
    "one_text": ("one short text", "ms", "less"),
    "train/mnrl": ("LoRA training, MNRL", "pairs/s", "more"),
    "train/cached-mnrl": ("LoRA training, cached MNRL", "pairs/s", "more"),
    "cold_start": ("cold start to the first embedding", "s", "less"),
    "memory/one_text": ("peak memory, one text", "MB", "less"),
    "memory/train": ("peak memory, training", "MB", "less"),
}
# What is told of sentence-burn alone.
ALONE = {
    "load": ("loading the model", "s", "less"),
    "memory/mixed": ("peak memory, encoding mixed texts", "MB", "less"),
    "encode/one_thread": ("mixed texts on one thread", "tokens/s", "more"),
    "encode/half": ("half of the mixed texts", "tokens/s", "more"),
    "size": ("`encode`, built for the CPU alone", "MB", "less"),
}
WAYS = {**{k: v[2] for k, v in (COMPARED | ALONE).items()}}


class Sitting:
    """The figures of one sitting: the best of each, and every line they come from."""

    def __init__(self, args):
        self.args, self.best, self.lines, self.warnings = args, {}, [], []
        self.failed = False

    def note(self, key, engine, value):
        if value is None:
            return
        better = max if WAYS[key] == "more" else min
        figures = self.best.setdefault(key, {})
        figures[engine] = better(figures[engine], value) if engine in figures else value

    def warn(self, text):
        if text not in self.warnings:
            self.warnings.append(text)
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def run(self, name, command, **environment):
        """Runs a command on an idle machine; gives its lines of JSON, its seconds and its peak memory in MB."""
        self.wait_until_idle(name)
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            before, started = busy_seconds(), time.perf_counter()
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                       cwd=ROOT, env=os.environ | environment)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds, after = time.perf_counter() - started, busy_seconds()
            out.seek(0), err.seek(0)
            lines, errors = parse(out.read()), err.read()
        if process.returncode != 0:
            self.failed = True
            self.warn(f"{name} failed ({process.returncode}): {' / '.join(errors.strip().splitlines()[-3:])}")
        if before is not None and seconds > 0.5:
            others = (after - before - usage.ru_utime - usage.ru_stime) / (seconds * CORES)
            if others > 0.15:
                self.warn(f"{name}: other processes used {others:.0%} of the machine meanwhile")
        for line in lines:
            if "warning" in line:
                self.warn(f"{name}: {line['warning']}")
            self.lines.append({"run": name, **line})
        # Linux counts it in kB, macOS in bytes.
        peak = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024 * 1024)
        return [line for line in lines if "warning" not in line], seconds, peak, process.returncode == 0

    def wait_until_idle(self, name):
        deadline = time.monotonic() + self.args.wait
        while (share := busy()) >= 0.15:
            if time.monotonic() >= deadline:
                self.warn(f"{name}: the machine was not idle before ({share:.0%} in use)")
                return
            time.sleep(2)

    def peers(self, verb, round):
        if self.args.peers is None or verb not in ("encode", "latency", "train"):
            return
        command = [self.args.python, self.args.peers, verb, "--model", self.args.model, "--runs", self.args.runs]
        self.take(verb, self.run(f"round {round}, peers, {verb}", command)[0])

    def ours(self, verb, round, bench, files, **environment):
        command = [bench, verb, "--model", self.args.model, "--runs", self.args.runs, *files]
        return self.run(f"round {round}, sentence-burn, {verb}", command, **environment)[0]

    def take(self, verb, lines):
        for line in lines:
            engine = str(line.get("engine", "")).removesuffix("+peft")
            if engine not in ENGINES:
                self.warn(f"{verb}: no such engine: {line.get('engine')!r}")
                continue
            if verb == "encode" and f"encode/{line.get('mix')}" in WAYS:
                self.note(f"encode/{line['mix']}", engine, line.get("tokens_per_s"))
            elif verb == "latency":
                self.note("one_text", engine, line.get("one_text_ms"))
                self.note("cold_start", engine, line.get("cold_start_s"))
                self.note("memory/one_text", engine, line.get("peak_rss_mb"))
            elif verb == "train" and f"train/{line.get('loss')}" in WAYS:
                self.note(f"train/{line['loss']}", engine, line.get("pairs_per_s"))
            elif verb == "load":
                self.note("load", engine, line.get("load_s"))
        if verb == "train" and lines:
            peaks = [line["peak_rss_mb"] for line in lines if line.get("peak_rss_mb")]
            self.note("memory/train", str(lines[0].get("engine")).removesuffix("+peft"), max(peaks, default=None))

    def check_tokens(self):
        """The same texts have the same tokens, or it is another job that was timed."""
        counts = {}
        for line in self.lines:
            if line.get("mix") in MIXES and line.get("texts_per_s"):
                counts.setdefault(line["mix"], {})[line["engine"]] = line["tokens_per_s"] / line["texts_per_s"]
        for mix, of in counts.items():
            if max(of.values()) > 1.02 * min(of.values()):
                told = ", ".join(f"{engine} {count:.1f}" for engine, count in of.items())
                self.warn(f"{mix} texts have different numbers of tokens on average: {told}")

    def result(self):
        return {"model": self.args.name or Path(self.args.model).resolve().name, "machine": machine(), "cores": CORES,
                "rounds": self.args.rounds, "runs": self.args.runs, "figures": self.best, "warnings": self.warnings, "lines": self.lines}


def measure(args):
    sitting = Sitting(args)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        bench = build(folder / "throughput", ["bench", "--bench", "throughput", "--no-run", "--features", args.features])
        encode = build(folder / "encode", ["build", "--release", "--example", "encode", "--features", args.features])
        mixed = (args.data / "texts-mixed.txt").read_text().splitlines()
        half, one = folder / "texts-half.txt", folder / "one.txt"
        half.write_text("".join(f"{text}\n" for text in mixed[::2]))
        one.write_text("what is the capital of france and germany?\n")
        files = {"encode": [*(args.data / f"texts-{mix}.txt" for mix in MIXES), half], "train": [args.data / "train-pairs.jsonl"]}

        def start(round, texts, what, times):
            command = [encode, "--model", args.model, "--input", texts, "--output", folder / "out.npy"]
            for i in range(times):
                _, seconds, peak, done = sitting.run(f"round {round}, encode, {what}", command)
                # The first reads the files from disk.
                if done and (i > 0 or times == 1):
                    yield seconds, peak

        for round in range(1, args.rounds + 1):
            for job in (job for job in JOBS if job in args.only):
                if job == "start":
                    for seconds, peak in start(round, one, "one text", 1 + max(2, args.runs)):
                        sitting.note("cold_start", OURS, seconds)
                        sitting.note("memory/one_text", OURS, peak)
                    for _, peak in start(round, args.data / "texts-mixed.txt", "mixed texts", 1):
                        sitting.note("memory/mixed", OURS, peak)
                else:
                    sitting.peers(job, round)
                    sitting.take(job, sitting.ours(job, round, bench, files.get(job, [])))
                if job == "encode":
                    for line in sitting.ours(job, f"{round}, one thread", bench, files[job][1:2], RAYON_NUM_THREADS="1"):
                        sitting.note("encode/one_thread", OURS, line.get("tokens_per_s"))
                save(args.json, sitting.result())
        if args.size:
            small = build(folder / "small", ["build", "--release", "--example", "encode", "--no-default-features", "--features", "ndarray"])
            if shutil.which("strip"):
                subprocess.run(["strip", small], check=True)
            else:
                sitting.warn("the size is that of a binary with symbols: there is no `strip`")
            sitting.note("size", OURS, small.stat().st_size / 1e6)
    sitting.check_tokens()
    save(args.json, sitting.result())
    return sitting.result(), sitting.failed


def build(target, command):
    """Builds before anything is timed; keeps the binary where no other build replaces it."""
    print(f"cargo {' '.join(command)} …", file=sys.stderr, flush=True)
    done = subprocess.run(["cargo", command[0], "--message-format=json", *command[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    built = [line["executable"] for line in parse(done.stdout) if line.get("executable")]
    if done.returncode != 0 or not built:
        sys.exit(f"cargo {' '.join(command)} failed")
    shutil.copy(built[-1], target)
    return target


def parse(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def save(path, result):
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


def cpu_ticks():
    """The ticks of all cores and those without work, or None where the system does not say."""
    try:
        ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]))
        return sum(ticks), ticks[3] + ticks[4]
    except OSError:
        return None


def busy_seconds():
    ticks = cpu_ticks()
    return ticks and (ticks[0] - ticks[1]) / os.sysconf("SC_CLK_TCK")


def busy(seconds=0.5):
    """The share of all cores that is in use."""
    before = cpu_ticks()
    time.sleep(seconds)
    if before is None:
        return min(1.0, os.getloadavg()[0] / CORES)
    after = cpu_ticks()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def machine():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def number(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(ours, theirs, way):
    """How many times as good as theirs ours is."""
    if not ours or not theirs:
        return "–"
    return f"{(ours / theirs if way == 'more' else theirs / ours):.2f}×"


def table(result):
    figures, cores = result["figures"], result["cores"]
    lines = [f"{result['model']} on {cores} core{'s' * (cores > 1)} ({result['machine']}), the best of {result['rounds']} × {result['runs']} runs. A factor over 1 "
             "says how many times as fast, or as small, sentence-burn is.", "",
             "| | | PyTorch | ONNX Runtime | sentence-burn | against PyTorch | against ONNX Runtime |", "|---|---|--:|--:|--:|--:|--:|"]
    for key, (name, unit, way) in COMPARED.items():
        if of := figures.get(key):
            torch, onnx, ours = (of.get(engine) for engine in ENGINES)
            cells = [number(torch), number(onnx), number(ours), ratio(ours, torch, way), ratio(ours, onnx, way)]
            lines.append(f"| {name} | {unit} | {' | '.join(cells)} |")
    ours = lambda key: figures.get(key, {}).get(OURS)
    alone = [f"| {name} | {unit} | {number(ours(key))} | {scaling(key, ours, cores)} |" for key, (name, unit, _) in ALONE.items() if ours(key)]
    if alone:
        lines += ["", "| sentence-burn alone | | | |", "|---|---|--:|---|", *alone]
    lines += [f"\n> Warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def scaling(key, ours, cores):
    whole = ours("encode/mixed")
    if key == "encode/one_thread" and whole:
        return f"{cores} threads are {whole / ours(key):.2f}× as fast"
    if key == "encode/half" and whole:
        return f"twice the tokens take {2 * ours(key) / whole:.2f}× as long"
    return ""


STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; fill: #1f2328; font-size: 12px }
  .card { fill: #ffffff; stroke: #d1d9e0 } .under { fill: #ffffff } .grid { stroke: #d1d9e0 } .quiet { fill: #59636e } .title { font-size: 15px; font-weight: 600 }
  .ours { font-weight: 700 } .torch { fill: #a5adb8 } .onnxruntime { fill: #5e96d6 } .sentence-burn { fill: #e0561b }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .card { fill: #0d1117; stroke: #3d444d } .under { fill: #0d1117 } .grid { stroke: #30363d } .quiet { fill: #9198a1 }
    .torch { fill: #6b7580 } .onnxruntime { fill: #4a86cf } .sentence-burn { fill: #f0702f }
  }"""
WIDTH, HEIGHT, TOP, BOTTOM = 860, 380, 98, 310


def svg(result):
    figures = result["figures"]
    encoding = [(f"{mix} texts", figures.get(f"encode/{mix}", {})) for mix in MIXES]
    training = [(name, figures.get(f"train/{loss}", {})) for loss, name in (("mnrl", "MNRL"), ("cached-mnrl", "cached MNRL"))]
    panels = [("Encoding, tokens/s", encoding), ("LoRA training, pairs/s", training)]
    panels = [(title, groups) for title, groups in panels if any(of for _, of in groups)]
    shown = [engine for engine in ENGINES if any(engine in of for _, groups in panels for _, of in groups)]
    cores = result["cores"]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
             'aria-label="Encoding and training speed">', f"<style>{STYLE}\n</style>",
             f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>']
    x = 24
    for engine in shown:
        parts.append(f'<rect class="{engine}" x="{x}" y="21" width="12" height="12" rx="2"/><text x="{x + 18}" y="31">{ENGINES[engine]}</text>')
        x += 44 + 7 * len(ENGINES[engine])
    # Each panel is as wide as it has bars.
    bars = [sum(max(1, len(of)) + 1 for _, of in groups) for _, groups in panels]
    space = WIDTH - 48 - 40 * (len(panels) - 1)
    x = 24
    for (title, groups), count in zip(panels, bars):
        width = space * count / sum(bars)
        parts += panel(title, groups, x, width)
        x += width + 40
    caption = f"{result['model']} on {cores} CPU core{'s' * (cores > 1)}, f32; more is better"
    parts += [f'<text class="quiet" x="24" y="{HEIGHT - 20}">{html.escape(caption)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def panel(title, groups, x, width):
    """A chart with a group of bars for each of `groups`, and an axis of its own."""
    highest = max((value for _, of in groups for value in of.values()), default=1) or 1
    step = next(s for s in (m * 10 ** e for e in range(math.floor(math.log10(highest)) - 1, 20) for m in (1, 2, 5)) if highest / s <= 5)
    top = step * math.ceil(highest / step)
    at = lambda value: BOTTOM - (BOTTOM - TOP) * value / top
    parts = [f'<text class="title" x="{x:.1f}" y="66">{html.escape(title)}</text>']
    left = x + 34
    for i in range(round(top / step) + 1):
        y = at(i * step)
        parts.append(f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{x + width:.1f}" y2="{y:.1f}"/>'
                     f'<text class="quiet" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{short(i * step)}</text>')
    slots = sum(max(1, len(of)) + 1 for _, of in groups)
    slot = (x + width - left) / slots
    place = left + slot / 2
    for name, of in groups:
        centre = place + slot * max(1, len(of)) / 2
        parts.append(f'<text x="{centre:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{html.escape(name)}</text>')
        for engine in (engine for engine in ENGINES if engine in of):
            y = at(of[engine])
            weight, label = ' class="ours"' if engine == OURS else "", short(of[engine])
            # No grid line runs through a label.
            parts.append(f'<rect class="under" x="{place + slot / 2 - 4 * len(label):.1f}" y="{y - 16:.1f}" width="{8 * len(label)}" height="14"/>')
            parts.append(f'<rect class="{engine}" x="{place + 2:.1f}" y="{y:.1f}" width="{slot - 4:.1f}" height="{BOTTOM - y:.1f}" rx="2"/>'
                         f'<text{weight} x="{place + slot / 2:.1f}" y="{y - 5:.1f}" text-anchor="middle">{label}</text>')
            place += slot
        place += slot * (1 if of else 2)
    return parts


def short(value):
    """A number in three digits: 28.4, 934, 8.12k, 10.3k."""
    return f"{value:.3g}" if value < 999.5 else f"{value / 1000:.3g}k"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder")
    parser.add_argument("--name", help="what to call the model (default: the name of its folder)")
    parser.add_argument("--peers", type=Path, help="the script that times what one would use instead")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs it (default: this one)")
    parser.add_argument("--data", type=Path, help="the folder with the texts and the pairs (default: that of the peers' script)")
    parser.add_argument("--features", default="default", help="cargo features of sentence-burn")
    parser.add_argument("--rounds", type=int, default=2, help="how often each takes its turn")
    parser.add_argument("--runs", type=int, default=3, help="how often each repeats a job in its turn")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=JOBS, help="only these")
    parser.add_argument("--wait", type=float, default=60, help="the most seconds to wait for an idle machine before each")
    parser.add_argument("--size", action="store_true", help="also build `encode` for the CPU alone and weigh it")
    parser.add_argument("--json", type=Path, help="where all figures go")
    parser.add_argument("--svg", type=Path, help="where a chart goes")
    parser.add_argument("--from", dest="saved", type=Path, help="measure nothing: table and chart of an earlier --json")
    args = parser.parse_args()
    if args.saved is None:
        if args.model is None:
            parser.error("--model is missing")
        # A name with a folder in it is a path; another may be a command.
        args.python = os.path.abspath(args.python) if os.sep in args.python else args.python
        args.model = os.path.abspath(args.model)
        args.peers = args.peers and args.peers.resolve()
        args.data = (args.data or args.peers and args.peers.parent)
        if args.data is None:
            parser.error("--data is missing")
        args.data = args.data.resolve()
        for path in (args.model, args.peers, *(args.data / f"texts-{mix}.txt" for mix in MIXES), args.data / "train-pairs.jsonl"):
            if path and not os.path.exists(path):
                parser.error(f"{path}: no such file")
    return args


def main():
    args = arguments()
    result, failed = (json.loads(args.saved.read_text()), False) if args.saved else measure(args)
    print(table(result))
    if args.svg:
        args.svg.write_text(svg(result))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
