"""The figures as Markdown tables, in the marked section of README.md, and as a bar chart, results.svg."""

import re
from html import escape

from .workloads import FOLDER, families, family, figure_text

README = FOLDER.parent.parent / "README.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def write_report(results):
    (FOLDER / "results.svg").write_text(chart(results["figures"]))
    text = README.read_text() if README.exists() else ""
    section = re.compile(rf"({BEGIN}\n).*?({END})", re.DOTALL)
    if section.search(text):
        README.write_text(section.sub(lambda match: match[1] + tables(results) + match[2], text))
    else:
        print(f"README.md has no section {BEGIN} … {END}: the tables were not written there")


def tables(results):
    """All families, one table each."""
    parts = []
    for name in families():
        figures = results["figures"].get(name, {})
        title, workloads = family(name)
        rows = [(workload, figures[workload.name]) for workload in workloads.values() if workload.name in figures]
        if rows:
            parts.append(f"**{title}**\n\n{table(rows)}\n")
    picture = "![the time of each step beside its baseline, as bars](tests/bench/results.svg)\n"
    return "\n".join([f"Medians on {results['machine']}.\n", picture, *parts])


def table(rows):
    """A row for each workload, a column for each peer, and how the goals were met."""
    peers = list(dict.fromkeys(peer for _, figures in rows for peer in figures))
    units = {workload.measured for workload, _ in rows}
    unit = units.pop() if len(units) == 1 else None
    header = [f"{unit}" if unit else "", *peers, "ratios"]
    lines = [header, ["---", *["---:"] * len(peers), "---"]]
    for workload, figures in rows:
        cells = ["" if peer not in figures else "—" if figures[peer] is None else figure_text(figures[peer])
                 for peer in peers]
        lines.append([workload.name, *cells, "; ".join(workload.verdicts(figures))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --------------------------------------------------------------------------------------------------------------- chart

STYLE = """
text { font: 13px Helvetica, Arial, sans-serif; fill: #1b2430 }
.small { font-size: 12px; fill: #566070 }
.title { font-weight: bold }
.ours { fill: #1d5fa8 } .ours2 { fill: #6fa3d8 } .base { fill: #a3adbb } .other { fill: #ced4dc }
.paper { fill: #ffffff } .line { stroke: #566070; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e8ebf0 } .small { fill: #a3adbb } .paper { fill: #0f1419 } .line { stroke: #a3adbb }
  .ours { fill: #6fb0f5 } .ours2 { fill: #2f6fb5 } .base { fill: #6b7480 } .other { fill: #3d4653 }
}
"""
LEFT, WIDTH, LONGEST, BAR, GAP = 190, 760, 2.2, 16, 20


def chart(figures):
    """Horizontal bars: the time of each peer beside that of the workload's baseline, which is 1."""
    body, y = [], 54
    unit = (WIDTH - LEFT - 160) / LONGEST
    for name in families():
        for workload in family(name)[1].values():
            found = figures.get(name, {}).get(workload.name, {})
            if not found.get(workload.chart):
                continue
            body.append(f'<text class="title" x="10" y="{y}">{escape(workload.name)}</text>')
            y += 8
            ours = 0
            for peer, figure in found.items():
                if figure is None:
                    continue
                tone = "base" if peer == workload.chart else "other"
                if peer.startswith(("tinynet", "program")):
                    tone, ours = ("ours", "ours2")[min(ours, 1)], ours + 1
                r = figure / found[workload.chart]
                ratio = figure_text(float(f"{r:.2g}"))
                length = max(1.0, min(r, LONGEST) * unit)
                body.append(f'<text class="small" x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(peer)}</text>'
                            f'<rect class="{tone}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 3}"/>'
                            f'<text class="small" x="{LEFT + length + 6:.1f}" y="{y + 11}">{ratio}×  '
                            f'{"→ " if r > LONGEST else ""}{figure_text(figure)} {workload.measured}</text>')
                y += BAR
            y += GAP
    x = LEFT + unit
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
            f"<title>Time of a step beside PyTorch or micrograd</title><style>{STYLE}</style>"
            f'<rect class="paper" width="{WIDTH}" height="{y}"/>'
            f'<text class="small" x="{x:.1f}" y="20" text-anchor="middle">1 = PyTorch (scalar, eager: micrograd);'
            f' shorter is faster</text>'
            f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="28" y2="{y - GAP}"/>{"".join(body)}</svg>\n')
