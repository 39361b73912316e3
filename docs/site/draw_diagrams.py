# SPDX-License-Identifier: Apache-2.0
"""Draws the diagrams of the methods' pages, docs/images/methods/*.svg, from the texts below.

    python docs/site/draw_diagrams.py

A diagram is lines: ``name @ column,row kind: text`` places a box, and ``a > b`` draws an arrow. Kinds are data,
network, rule and loss.
"""

import pathlib
import re
from html import escape

TEXTS = {
    "supervised": """
        image @ 0,0 data: labeled images
        net @ 1,0 network: network
        loss @ 2,0 loss: cross-entropy
        image > net
        net > loss
    """,
    "dacs": """
        source @ 0,0 data: labeled day
        target @ 0,2 data: night
        teacher @ 1,2 network: EMA teacher
        pseudo @ 2,2 data: pseudo-labels
        mix @ 2,1 rule: class mix
        student @ 3,0 network: student
        ls @ 4,0 loss: source loss
        lm @ 4,1 loss: mixed loss
        source > student
        source > mix
        target > teacher
        target > mix
        teacher > pseudo
        pseudo > mix
        mix > student
        student > ls
        student > lm
    """,
    "dsr_fpa": """
        source @ 0,0 data: labeled day
        target @ 0,1 data: night
        day @ 0,2 data: day reference
        teacher @ 1,2 network: EMA teacher
        refine @ 2,2 rule: refinement
        bank @ 1,0 rule: rare-class bank
        mix @ 2,1 rule: class mix
        student @ 3,1 network: student
        ls @ 4,0 loss: source loss
        lm @ 4,1 loss: mixed loss
        fpa @ 4,2 loss: prototypes
        source > bank
        bank > mix
        target > mix
        target > teacher
        day > teacher
        teacher > refine
        refine > mix
        mix > student
        student > ls
        student > lm
        student > fpa
    """,
    "mic": """
        target @ 0,0 data: night
        teacher @ 1,0 network: EMA teacher
        pseudo @ 2,0 data: pseudo-labels
        mask @ 1,1 rule: hide 70 % in blocks
        student @ 2,1 network: student
        loss @ 3,0 loss: masked loss
        target > teacher
        target > mask
        teacher > pseudo
        mask > student
        pseudo > loss
        student > loss
    """,
    "t2s_da": """
        source @ 0,0 data: labeled day
        fda @ 1,0 rule: night look (FDA)
        student @ 2,0 network: student
        query @ 3,0 data: queries
        target @ 0,1 data: night
        teacher @ 2,1 network: EMA teacher
        keys @ 3,1 data: prototypes, negatives
        pull @ 4,0 loss: pulling loss
        source > fda
        fda > student
        student > query
        query > pull
        source > teacher
        target > teacher
        teacher > keys
        keys > pull
    """,
    "dannet": """
        source @ 0,0 data: labeled day
        day @ 0,1 data: day reference
        night @ 0,2 data: night
        relight @ 1,1 network: relighting
        seg @ 2,1 network: segmentation
        ce @ 3,0 loss: cross-entropy
        adv @ 3,1 loss: two discriminators
        static @ 3,2 loss: static loss by day
        source > relight
        day > relight
        night > relight
        relight > seg
        seg > ce
        seg > adv
        seg > static
    """,
    "adaptsegnet": """
        source @ 0,0 data: labeled day
        target @ 0,1 data: night
        seg @ 1,0 network: segmentation
        ce @ 2,0 loss: cross-entropy
        disc @ 2,1 network: discriminator
        adv @ 3,1 loss: adversarial loss
        source > seg
        target > seg
        seg > ce
        seg > disc
        disc > adv
    """,
    "vfm_uda": """
        source @ 0,0 data: labeled day
        target @ 0,1 data: night
        mask @ 1,1 rule: hide 70 % of the tokens
        teacher @ 1,2 network: EMA teacher
        vit @ 2,0 network: DINOv2 + light head
        ls @ 3,0 loss: source, mixed
        lm @ 3,1 loss: masked loss
        source > vit
        target > mask
        target > teacher
        mask > vit
        vit > ls
        vit > lm
        teacher > lm
    """,
    "self_supervised": """
        image @ 0,0 data: images, no labels
        mask @ 1,0 rule: hide 60 % of the patches
        vit @ 2,0 network: transformer
        loss @ 3,0 loss: L2 of hidden gradients
        image > mask
        mask > vit
        vit > loss
    """,
    "nightlab": """
        image @ 0,0 data: night
        level1 @ 1,0 network: image level
        det @ 1,1 network: hard-region detector
        crop @ 2,1 rule: enlarged regions
        level2 @ 3,1 network: region level
        merge @ 4,0 rule: merge hard classes
        image > level1
        image > det
        det > crop
        crop > level2
        level1 > merge
        level2 > merge
    """,
    "self_training": """
        day @ 0,0 data: labeled day
        trans @ 1,0 network: UNIT
        night @ 2,0 data: labeled fake night
        net @ 3,0 network: network
        pool @ 0,1 data: unlabeled nights
        select @ 1,1 rule: select by FID
        label @ 2,1 rule: pseudo-label
        day > trans
        trans > night
        night > net
        pool > select
        select > label
        label > net
        net > label
    """,
    "unit": """
        day @ 0,0 data: day
        enc @ 1,0 network: encoder of days
        code @ 2,0 data: shared code
        dec @ 3,0 network: decoder of nights
        fake @ 4,0 data: fake night
        disc @ 4,1 network: discriminator
        night @ 3,1 data: real night
        day > enc
        enc > code
        code > dec
        dec > fake
        fake > disc
        night > disc
    """,
    "cyclegan": """
        night @ 0,0 data: night
        g @ 1,0 network: to day
        fake @ 2,0 data: fake day
        f @ 3,0 network: to night
        back @ 4,0 data: night again
        cyc @ 4,1 loss: cycle loss
        disc @ 2,1 network: discriminator
        night > g
        g > fake
        fake > f
        f > back
        back > cyc
        fake > disc
    """,
    "pix2pixhd": """
        label @ 0,0 data: label map
        g @ 1,0 network: generator
        fake @ 2,0 data: fake day
        disc @ 3,0 network: multi-scale discriminators
        real @ 2,1 data: real day
        loss @ 4,0 loss: adversarial, features
        label > g
        g > fake
        fake > disc
        real > disc
        disc > loss
    """,
    "uawarpc": """
        day @ 0,0 data: day
        night @ 0,1 data: night
        warped @ 1,0 rule: random warp
        net @ 2,0 network: matcher
        flow @ 3,0 data: flow, variance
        loss @ 4,0 loss: known warp
        bi @ 4,1 loss: day, night, warped day
        day > warped
        day > net
        warped > net
        night > net
        net > flow
        flow > loss
        flow > bi
    """,
}
COLORS = {"data": "#e3edf9", "network": "#d9efdd", "rule": "#f8ecd2", "loss": "#f9dcd9"}
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 172, 44, 222, 84, 14
BOX = re.compile(r"(\w+) @ (\d+),(\d+) (\w+): (.+)")
ARROW = re.compile(r"(\w+) > (\w+)")


def draw(name: str, text: str) -> str:
    """The diagram as SVG."""
    boxes, arrows = {}, []
    for line in filter(None, map(str.strip, text.splitlines())):
        if box := BOX.fullmatch(line):
            boxes[box[1]] = (int(box[2]), int(box[3]), box[4], box[5])
        elif arrow := ARROW.fullmatch(line):
            arrows.append((arrow[1], arrow[2]))
        else:
            raise ValueError(f"{name}: {line!r} is neither a box nor an arrow")
    width = 2 * MARGIN + ACROSS * max(box[0] for box in boxes.values()) + WIDTH
    height = 2 * MARGIN + DOWN * max(box[1] for box in boxes.values()) + HEIGHT
    steps = ", ".join(f"{boxes[a][3]} to {boxes[b][3]}" for a, b in arrows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="13">',
        f"<title>{escape(steps)}</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for a, b in arrows:
        (x1, y1), (x2, y2) = ends(boxes[a], boxes[b])
        parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#444" stroke-width="1.4" marker-end="url(#head)"/>'
        )
    for column, row, kind, label in boxes.values():
        x, y = MARGIN + ACROSS * column, MARGIN + DOWN * row
        radius = {"data": 4, "loss": 22}.get(kind, 12)
        parts.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}" fill="{COLORS[kind]}" '
            'stroke="#555"/>'
            f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 4.5}" text-anchor="middle" fill="#111">'
            f"{escape(label)}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def ends(a: tuple, b: tuple) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an arrow leaves the first box and meets the second."""
    (ax, ay), (bx, by) = ((MARGIN + ACROSS * box[0], MARGIN + DOWN * box[1]) for box in (a, b))
    if a[0] == b[0]:
        down = b[1] > a[1]
        return (ax + WIDTH / 2, ay + HEIGHT * down), (bx + WIDTH / 2, by + HEIGHT * (not down))
    right = b[0] > a[0]
    shift = 8 * (a[1] > b[1]) - 8 * (a[1] < b[1])
    return (ax + WIDTH * right, ay + HEIGHT / 2 - shift), (bx + WIDTH * (not right), by + HEIGHT / 2 + shift)


if __name__ == "__main__":
    folder = pathlib.Path(__file__).parents[1] / "images" / "methods"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        (folder / f"{name}.svg").write_text(draw(name, text))
