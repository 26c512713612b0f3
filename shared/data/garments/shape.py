"""Draws a garment's cut: its outline from length, fit, sleeve and neckline.

Classes of one group overlap a little, as people's judgement of them does (a long short sleeve, a wide conventional cut), so that no classifier
can always be right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from shared.data.garments.body import (
    BODY_WIDTH,
    BODY_Y,
    HIP,
    SHOULDER,
    WAIST,
    Canvas,
    Points,
    Pose,
    column,
    ellipse,
    limb,
    smooth_widths,
)


@dataclass(frozen=True)
class Cut:
    """Describes a garment's form, which follows from its labels and chance. Lengths are in figure coordinates."""

    ease: float
    """Gives the garment's width as a factor of the body's."""
    sleeve: float
    """Gives the share of the arm that the sleeves cover."""
    hem: float
    """Gives the height of its lower edge on the figure."""
    trousers: bool
    """Says whether it is worn with trousers or leggings: nearly always if it is not a dress."""
    flare: float
    """Gives the width of the hem as a factor of the hip's."""
    neckline: str
    """Names the neckline's form: crew, v or square, or strapless, collar or turtleneck if the label is no_neckline."""
    depth: float
    """Gives the depth of the neckline."""
    opening: float
    """Gives half the neckline's width."""
    top: float
    """Gives the height of the garment's upper edge on the figure."""


EASE = {"tight": (0.8, 0.03), "conventional": (1.14, 0.045), "loose": (1.75, 0.12)}  # mean and standard deviation
UNDECIDED = 0.13  # share of tight and loose garments that could also be called conventional
SLEEVE = {"sleeveless": (0.0, 0.0), "short_sleeve": (0.2, 0.6), "long_sleeve": (0.56, 1.0)}  # from, to
CAP_SLEEVE = 0.06  # share of sleeveless garments that cover the shoulder as a short sleeve does
HEM = {"no_dress": (0.50, 0.63), "mini_length": (0.61, 0.80), "maxi_length": (0.79, 0.97)}


def draw_cut(labels: dict[str, str], rng: np.random.Generator) -> Cut:
    """Draws a random form of a garment with these classes (by group)."""
    mean, spread = EASE[labels["fit"]]
    ease = float(rng.normal(mean, spread))
    if labels["fit"] != "conventional" and rng.random() < UNDECIDED:
        ease = 0.35 * ease + 0.65 * EASE["conventional"][0]
    sleeve = float(rng.uniform(*SLEEVE[labels["sleeve"]]))
    hem = float(rng.uniform(*HEM[labels["length"]]))
    if labels["sleeve"] == "sleeveless" and rng.random() < CAP_SLEEVE:
        sleeve = float(rng.uniform(0.1, 0.26))
    trousers = bool(rng.random() < (0.88 if labels["length"] == "no_dress" else 0.06))
    slim = labels["fit"] == "tight"
    flare = (
        float(rng.uniform(0.88, 1.1) if slim else rng.uniform(1.05, 1.5))
        if hem > HIP + 0.1
        else float(rng.uniform(0.95, 1.1))
    )
    neckline = labels["neckline"].removesuffix("_neckline")
    if neckline == "no":
        kinds = ["strapless", "collar", "turtleneck"]
        neckline = str(
            rng.choice(kinds, p=[0.5, 0.25, 0.25] if labels["sleeve"] == "sleeveless" else [0.15, 0.45, 0.4])
        )
    depth, opening = {
        "crew": (rng.uniform(0.025, 0.06), rng.uniform(0.06, 0.085)),
        "v": (rng.uniform(0.07, 0.15), rng.uniform(0.055, 0.085)),
        "square": (rng.uniform(0.06, 0.095), rng.uniform(0.08, 0.105)),
    }.get(neckline, (0.0, 0.0))
    top = SHOULDER + rng.uniform(0.05, 0.085) if neckline == "strapless" else SHOULDER - 0.018
    return Cut(ease, sleeve, hem, trousers, flare, neckline, float(depth), float(opening), float(top))


def garment_width(cut: Cut, y: Points) -> Points:
    """Returns the half-width of the garment's trunk at heights y."""
    body = smooth_widths(np.minimum(y, HIP), BODY_Y, BODY_WIDTH)
    chest = cut.ease**0.6  # cloth hangs from the shoulders: a wide cut shows at waist and hip
    ease = np.interp(y, [SHOULDER, 0.30, WAIST], [min(1.04, chest), chest, cut.ease])
    boxy = np.clip((cut.ease - 1.0) * 0.14, 0, 0.07) * np.exp(-(((y - WAIST) / 0.09) ** 2))  # a wide cut has no waist
    flare = 1 + (cut.flare - 1) * np.clip((y - HIP) / max(cut.hem - HIP, 0.05), 0, 1)
    bare = 0.22 * (cut.sleeve == 0) * np.clip((0.29 - y) / 0.09, 0, 1)  # armholes
    width: Points = (body * ease + boxy) * flare * (1 - bare)
    return width


def garment_masks(cut: Cut, pose: Pose, canvas: Canvas) -> tuple[Image.Image, Image.Image]:
    """Returns masks (mode L) of the whole garment and of its sleeves alone."""
    y = np.linspace(cut.top, cut.hem, 28)
    trunk = column(pose, y, garment_width(cut, y))
    if cut.neckline != "strapless":
        trunk = np.concatenate([trunk, [[0.06, SHOULDER - 0.03], [-0.06, SHOULDER - 0.03]]])
    polygons = [trunk]
    sleeves = []
    if cut.sleeve > 0:
        width = 0.036 * (0.55 + 0.6 * cut.ease)
        cuff = width * (0.75 + 0.55 * max(cut.ease - 1.0, 0.0) * 2)
        for arm in pose.arms:
            if cut.neckline == "strapless":  # off the shoulder
                sleeves.append(limb(arm, (width + 0.012, cuff), (0.1, cut.sleeve)))
            else:
                sleeves += [
                    limb(arm, (width + 0.012, cuff), (0.0, cut.sleeve)),
                    ellipse(float(arm[0, 0]), float(arm[0, 1]), width + 0.012, width + 0.008),
                ]
    if cut.neckline == "turtleneck":
        polygons.append(np.array([[-0.062, 0.165], [0.062, 0.165], [0.085, SHOULDER], [-0.085, SHOULDER]]))
    sleeve_mask = canvas.mask(*sleeves)
    mask = ImageChops.lighter(canvas.mask(*polygons), sleeve_mask)
    if (hole := neck_hole(cut)) is not None:
        mask = ImageChops.subtract(mask, canvas.mask(hole))
    return mask, sleeve_mask


def neck_hole(cut: Cut) -> Points | None:
    """Returns the outline of the opening of the neckline, None if it has none."""
    top, w, low = SHOULDER - 0.05, cut.opening, SHOULDER - 0.02 + cut.depth
    if cut.neckline == "crew":
        t = np.linspace(0, np.pi, 15)
        bow = np.stack([w * np.cos(t), SHOULDER - 0.022 + (low - SHOULDER + 0.022) * np.sin(t)], 1)
        return np.concatenate([[[-w, top], [w, top]], bow])
    if cut.neckline == "v":
        return np.array([[-w, top], [w, top], [w, SHOULDER - 0.022], [0.0, low], [-w, SHOULDER - 0.022]])
    if cut.neckline == "square":
        return np.array([[-w, top], [w, top], [w, low], [-w, low]])
    return None


def collar(cut: Cut) -> list[Points]:
    """Returns the two flaps of a shirt's collar, none if the neckline is not a collar."""
    flap = np.array([[0.0, SHOULDER + 0.012], [0.055, 0.17], [0.082, 0.19], [0.05, SHOULDER + 0.035]])
    return [flap, flap * np.array([-1.0, 1.0])] if cut.neckline == "collar" else []
