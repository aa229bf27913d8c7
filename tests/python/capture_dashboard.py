"""Captures the training dashboard as a picture: runs a command in tmux, waits, and writes its screen as an SVG.

    cargo build --release --examples
    python tests/python/capture_dashboard.py --seconds 40 --svg examples/quickstart/dashboard.svg \
        target/release/examples/quickstart

Needs tmux. Run by hand, never by CI.
"""

import argparse
import html
import re
import shlex
import subprocess
import sys
import time

CELL = (7.2, 15)
INK, PAPER = "#d8dee9", "#1d2128"
COLOURS = ["#3b4252", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d8dee9"]
BRIGHT = ["#6b7385", "#ff8088", "#b3e095", "#ffd68a", "#82c4ff", "#dd92f2", "#74d0dc", "#ffffff"]
ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")


def indexed(number: int) -> str:
    """A colour of the 256 that terminals number."""
    if number < 16:
        return (COLOURS + BRIGHT)[number]
    if number < 232:
        levels = [0, 95, 135, 175, 215, 255]
        cube = [(number - 16) // step % 6 for step in (36, 6, 1)]
        return "#" + "".join(f"{levels[part]:02x}" for part in cube)
    return "#" + f"{8 + 10 * (number - 232):02x}" * 3


def apply(style: dict, codes: list[int]) -> dict:
    style, codes = dict(style), codes or [0]
    while codes:
        code = codes.pop(0)
        side = "background" if code in range(40, 50) or code in range(100, 108) else "ink"
        if code == 0:
            style = {}
        elif code in (1, 2, 3):
            style[{1: "bold", 2: "dim", 3: "italic"}[code]] = True
        elif code == 22:
            style.pop("bold", None), style.pop("dim", None)
        elif code == 7:
            style["reverse"] = True
        elif code == 27:
            style.pop("reverse", None)
        elif code in (38, 48):
            kind = codes.pop(0)
            style[side] = indexed(codes.pop(0)) if kind == 5 else "#" + "".join(f"{codes.pop(0):02x}" for _ in range(3))
        elif code in (39, 49):
            style.pop(side, None)
        elif code % 10 < 8 and code // 10 in (3, 4, 9, 10):
            style[side] = (BRIGHT if code >= 90 else COLOURS)[code % 10]
    return style


def runs(line: str, style: dict) -> tuple[list[tuple[str, dict]], dict]:
    """The line's pieces of one style each, and the style it ends in."""
    parts = ESCAPE.split(line)
    found = []
    for place, part in enumerate(parts):
        if place % 2:
            style = apply(style, [int(code) for code in part.split(";") if code])
        elif part:
            found.append((part, style))
    return found, style


def svg(lines: list[str], columns: int) -> str:
    width, height = columns * CELL[0] + 16, len(lines) * CELL[1] + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="12">',
        f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>',
    ]
    style = {}
    for row, line in enumerate(lines):
        pieces, style = runs(line, style)
        column = 0
        for text, look in pieces:
            ink, background = look.get("ink", INK), look.get("background")
            if look.get("reverse"):
                ink, background = background or PAPER, ink
            x, y = 8 + column * CELL[0], 8 + row * CELL[1]
            length = len(text) * CELL[0]
            if background:
                out.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{CELL[1]}" fill="{background}"/>')
            if text.strip():
                faint = ' opacity="0.6"' if look.get("dim") else ""
                weight = ' font-weight="bold"' if look.get("bold") else ""
                out.append(
                    f'<text x="{x:.1f}" y="{y + 12}" fill="{ink}"{weight}{faint} textLength="{length:.1f}" '
                    f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{html.escape(text)}</text>'
                )
            column += len(text)
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svg", required=True, help="the file to write")
    parser.add_argument("--seconds", type=float, default=30, help="how long to wait before the picture")
    parser.add_argument("--size", default="150x42", help="columns and rows of the terminal")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    columns, rows = map(int, args.size.split("x"))
    session = f"capture-{int(time.time())}"
    tmux = lambda *options: subprocess.run(["tmux", "-u", *options], capture_output=True, text=True)
    tmux("new-session", "-d", "-s", session, "-x", str(columns), "-y", str(rows), shlex.join(args.command))
    time.sleep(args.seconds)
    screen = tmux("capture-pane", "-e", "-p", "-t", session)
    tmux("kill-session", "-t", session)
    if screen.returncode or not screen.stdout.strip():
        sys.exit(f"nothing on the screen after {args.seconds} s: {screen.stderr}")
    with open(args.svg, "w", encoding="utf-8") as file:
        file.write(svg(screen.stdout.rstrip("\n").split("\n"), columns))


if __name__ == "__main__":
    main()
