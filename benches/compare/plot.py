"""The plot, as SVG: for each case what every peer costs as a multiple of scorefront, median and range, on a scale of logarithms."""

import math
from html import escape

COLOURS = {"nginx": "#2e8b57", "haproxy": "#1f5fbf", "envoy": "#b0479e", "traefik": "#e08a1e", "caddy": "#7a7a7a"}
ROW, LEFT, RIGHT, TOP, WIDTH = 34, 350, 30, 78, 960
STEPS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def draw(results, subtitle):
    """The whole file; nothing if there is nobody to compare with."""
    results = [result for result in results if not result.case.variants and result.others]
    if not results:
        return None
    # The other way round than in the tables: what lies right of 1 costs more than scorefront.
    spreads = [(row, result, name, result.ratio(name)) for row, result in enumerate(results) for name in result.others]
    low = min(0.75, *(1 / spread.most for *_, spread in spreads))
    high = max(1.5, *(1 / spread.least for *_, spread in spreads))
    low, high = low / 1.08, high * 1.08
    bottom = TOP + ROW * len(results)

    def x(ratio):
        share = (math.log(ratio) - math.log(low)) / (math.log(high) - math.log(low))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def text(x, y, words, **style):
        style = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
        return f'<text x="{x:.1f}" y="{y:.1f}"{style}>{escape(words)}</text>'

    height = bottom + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        text(16, 24, "CPU (or memory) beside scorefront: right of 1 costs more, left of 1 less", font_size=15,
             font_weight="bold"),
        text(16, 43, subtitle, fill="#555"),
    ]
    titles = {name: title for result in results for name, title in result.titles.items()}
    for place, name in enumerate(dict.fromkeys(name for *_, name, _ in spreads)):
        parts.append(f'<circle cx="{LEFT + 4 + 90 * place}" cy="60" r="5" fill="{COLOURS.get(name, "#222")}"/>')
        parts.append(text(LEFT + 14 + 90 * place, 64, titles[name]))
    for row, result in enumerate(results):
        y = TOP + ROW * row
        if row % 2 == 0:
            parts.append(f'<rect x="0" y="{y}" width="{WIDTH}" height="{ROW}" fill="#f5f6f8"/>')
        parts.append(text(LEFT - 12, y + ROW / 2 + 4, result.case.title, text_anchor="end"))
    for step in STEPS:
        if low <= step <= high:
            line = 'stroke="#222" stroke-width="1.5"' if step == 1 else 'stroke="#ccc"'
            parts.append(f'<line x1="{x(step):.1f}" y1="{TOP}" x2="{x(step):.1f}" y2="{bottom}" {line}/>')
            parts.append(text(x(step), bottom + 17, f"{step:g}", text_anchor="middle"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, "times what scorefront costs (median and range of the rounds)",
                      text_anchor="middle", fill="#555"))
    for row, result, name, spread in spreads:
        # One below the other, so that those that cost the same stay apart.
        y = TOP + ROW * row + ROW * (result.others.index(name) + 1) / (len(result.others) + 1)
        colour, middle = COLOURS.get(name, "#222"), 1 / spread.middle
        parts.append(f'<line x1="{x(1 / spread.most):.1f}" y1="{y:.1f}" x2="{x(1 / spread.least):.1f}" y2="{y:.1f}"'
                     f' stroke="{colour}" stroke-width="2" stroke-opacity="0.5"/>')
        parts.append(f'<circle cx="{x(middle):.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>'
                     f"{escape(result.case.title)}: {escape(result.titles[name])} {middle:.2f} times</title></circle>")
    return "\n".join([*parts, "</svg>"]) + "\n"
