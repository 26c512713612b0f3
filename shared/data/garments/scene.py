"""Draws the whole image: a figure in a garment in front of a background, something in front of it, and the faults of a camera."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from shared.data.garments.body import (
    BODY_WIDTH,
    BODY_Y,
    HIP,
    SHOULDER,
    Canvas,
    Floats,
    Points,
    Pose,
    column,
    draw_pose,
    ellipse,
    limb,
    smooth_widths,
)
from shared.data.garments.cloth import Colour, Frame, base_colour, byte_colour, contrast_colour, hsv, luminance
from shared.data.garments.fabric import light_on, opacity, soft_noise
from shared.data.garments.pattern import paint_pattern
from shared.data.garments.shape import Cut, collar, draw_cut, garment_masks

Fill = Callable[[Points, Colour], None]
"""Paints a polygon of the figure."""
MIN_SIDE = 96  # pixels per side before the image is reduced: in smaller ones the fabric's texture is lost


def draw_garment(labels: dict[str, str], resolution: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns an image of a garment with these classes (by group), `[resolution, resolution, 3]`, RGB 0 to 255."""
    side = max(MIN_SIDE, resolution, min(2 * resolution, 256))  # twice as fine if that is cheap, for smooth edges
    cut, pose = draw_cut(labels, rng), draw_pose(rng)
    canvas = _camera(cut, side, rng)
    frame = Frame.of(canvas, cut, pose)
    picture = _background(side, rng)
    skin = _skin(rng)
    _paint_figure(picture, canvas, pose, cut, skin, rng)
    pixels: Floats = np.asarray(picture, np.float32) / 255
    pixels = _dress(pixels, labels, frame, pose, rng)
    picture = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    _occlude(picture, canvas, cut, skin, rng)
    return _photograph(picture, resolution, rng)


def _camera(cut: Cut, side: int, rng: np.random.Generator) -> Canvas:
    """Returns a random canvas that shows the garment, whole or nearly so, large or small, a little turned."""
    height = cut.hem - 0.12
    zoom = np.clip(rng.uniform(0.72, 0.98) / height, 0.8, 1.75)
    centre = (rng.normal(0, 0.02), 0.12 + height * rng.uniform(0.45, 0.55))
    return Canvas.place(side, float(zoom), centre, rng.normal(0, 0.07))


def _skin(rng: np.random.Generator) -> Colour:
    return hsv(rng.uniform(0.03, 0.09), rng.uniform(0.25, 0.6), rng.uniform(0.35, 0.97))


def _background(side: int, rng: np.random.Generator) -> Image.Image:
    """Draws the gradient of a studio, a room with a floor, or a street of blurred shapes."""
    top = hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.25, 1.0))
    bottom = hsv(rng.random(), rng.uniform(0, 0.35), rng.uniform(0.25, 1.0))
    kind = rng.choice(["studio", "room", "street"], p=[0.5, 0.25, 0.25])
    if kind == "studio":
        light = rng.uniform(0.75, 1.0)
        ends = np.array([[top], [tuple(light * value for value in top)]], np.float32)
        return Image.fromarray((ends * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    image = Image.new("RGB", (side, side), byte_colour(top))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, side * rng.uniform(0.6, 0.9), side, side), fill=byte_colour(bottom))
    for _ in range(int(rng.integers(1, 4) if kind == "room" else rng.integers(6, 14))):
        x, y = rng.uniform(-0.1, 1.0, 2) * side
        w, h = rng.uniform(0.08, 0.4, 2) * side
        draw.rectangle(
            (x, y, x + w, y + h), fill=byte_colour(hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.15, 1.0)))
        )
    return image.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.003, 0.02))) if kind == "street" else image


def _paint_figure(
    picture: Image.Image, canvas: Canvas, pose: Pose, cut: Cut, skin: Colour, rng: np.random.Generator
) -> None:
    """Draws body, hair and legs, and trousers if the cut has them."""
    draw = ImageDraw.Draw(picture)

    def fill(points: Points, colour: Colour) -> None:
        draw.polygon(canvas.pixels(points), fill=byte_colour(colour))

    hair = hsv(rng.uniform(0.0, 0.12), rng.uniform(0.1, 0.7), rng.uniform(0.05, 0.75))
    if long_hair := rng.random() < 0.5:
        fill(ellipse(0.0, 0.13, 0.085, rng.uniform(0.11, 0.15)), hair)
    shade: Colour = (skin[0] * 0.88, skin[1] * 0.85, skin[2] * 0.83)
    hip = float(pose.shift(np.array([HIP]))[0])
    slim = min(1.0, cut.ease)  # a tight garment makes the figure slimmer
    for x in (-0.075 * slim, 0.075 * slim):
        leg = np.array([[hip + x, HIP], [hip + x * 1.1, 0.76], [hip + x * 1.15, 1.02]])
        fill(limb(leg, (0.085 * slim, 0.04)), shade if x < 0 else skin)
    y = np.linspace(SHOULDER, 0.62, 18)
    fill(column(pose, y, smooth_widths(y, BODY_Y, BODY_WIDTH) * np.interp(y, [SHOULDER, 0.3], [1.0, slim])), skin)
    fill(np.array([[-0.045, 0.13], [0.045, 0.13], [0.05, 0.2], [0.17, 0.225], [-0.17, 0.225], [-0.05, 0.2]]), shade)
    for arm in pose.arms:
        fill(ellipse(float(arm[0, 0]), float(arm[0, 1]), 0.04, 0.035), skin)
        fill(limb(arm, (0.04, 0.028), (0.06, 1.0)), skin)
        fill(ellipse(arm[2, 0], arm[2, 1] + 0.01, 0.03, 0.03), skin)
    fill(ellipse(0.0, 0.085, 0.062, 0.08), skin)
    fill(ellipse(0.0, 0.04, 0.066, 0.042 if long_hair else 0.05), hair)
    if cut.trousers:
        _trousers(fill, pose, hip, slim, rng)


def _trousers(fill: Fill, pose: Pose, hip: float, slim: float, rng: np.random.Generator) -> None:
    colour = hsv(rng.uniform(0.55, 0.68), rng.uniform(0, 0.7), rng.uniform(0.08, 0.7))
    if rng.random() < 0.3:
        colour = hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.1, 0.95))
    low = rng.choice([1.04, rng.uniform(0.66, 0.75)], p=[0.75, 0.25])  # long ones, or shorts
    y = np.linspace(0.46, 0.62, 8)
    fill(column(pose, y, smooth_widths(y, BODY_Y, BODY_WIDTH) * 1.03 * slim), colour)
    for x in (-0.08 * slim, 0.08 * slim):
        fill(
            limb(
                np.array([[hip + x, HIP + 0.02], [hip + x * 1.1, 0.5 * (HIP + low)], [hip + x * 1.15, low]]),
                (0.092 * slim, 0.06),
            ),
            colour,
        )


def _dress(pixels: Floats, labels: dict[str, str], frame: Frame, pose: Pose, rng: np.random.Generator) -> Floats:
    """Paints the garment over the figure."""
    mask, sleeves = garment_masks(frame.cut, pose, frame.canvas)
    base = base_colour(labels["fabric"], rng)
    cloth = paint_pattern(labels["pattern"], base, frame, rng)
    shade, gloss = light_on(labels["fabric"], labels["fit"], frame, rng)
    shade = shade * _seams(mask, sleeves, frame)
    colour = cloth * shade[..., None] + gloss[..., None]
    alpha = opacity(labels["fabric"], mask, frame, rng)[..., None]
    dressed: Floats = pixels * (1 - alpha) + colour * alpha
    return _trimmings(dressed, labels["fabric"], base, mask, frame, rng)


def _seams(mask: Image.Image, sleeves: Image.Image, frame: Frame) -> Floats:
    """Returns a factor that darkens the garment at its edges and at the seams of the sleeves, so that its form is visible."""
    radius = frame.canvas.length(0.01)
    inside = np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    edge = np.clip((1 - inside) * 1.6, 0, 0.5)
    arm = np.asarray(sleeves.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    border: Floats = 1 - edge - 0.9 * arm * (1 - arm)
    return border


def _trimmings(
    pixels: Floats, fabric: str, base: Colour, mask: Image.Image, frame: Frame, rng: np.random.Generator
) -> Floats:
    """Draws the flaps of a collar and the light stitching of denim."""
    flaps = collar(frame.cut)
    stitched = fabric == "denim"
    if not flaps and not stitched:
        return pixels
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    width = max(1, round(frame.canvas.length(0.011)))
    for flap in flaps:
        tint = 0.8 if luminance(base) > 0.5 else 1.35
        fill = byte_colour((min(base[0] * tint, 1.0), min(base[1] * tint, 1.0), min(base[2] * tint, 1.0)))
        draw.polygon(frame.canvas.pixels(flap), fill=fill, outline=byte_colour(contrast_colour(base, rng, 0.2)))
    if stitched:
        thread = byte_colour(hsv(rng.uniform(0.06, 0.13), rng.uniform(0.3, 0.7), 0.85))
        for line in ([[0.0, 0.29], [0.0, frame.cut.hem]], [[-0.12, 0.31], [-0.04, 0.31]], [[0.04, 0.31], [0.12, 0.31]]):
            draw.line(frame.canvas.pixels(np.array(line)), fill=thread, width=width)
    return np.asarray(image, np.float32) / 255


def _occlude(picture: Image.Image, canvas: Canvas, cut: Cut, skin: Colour, rng: np.random.Generator) -> None:
    """Draws something in front of the garment in one image of three: a bag, its strap, hair, a hand, or an object."""
    draw = ImageDraw.Draw(picture)
    colour = byte_colour(hsv(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.1, 0.9)))
    side = rng.choice([-1.0, 1.0])
    kind = rng.choice(["none", "strap", "bag", "hair", "hand", "object"], p=[0.64, 0.09, 0.09, 0.07, 0.05, 0.06])
    if kind in ("strap", "bag"):
        ends = np.array([[-0.1 * side, SHOULDER], [0.2 * side, 0.5]])
        draw.line(canvas.pixels(ends), fill=colour, width=max(1, round(canvas.length(0.02))))
    if kind == "bag":
        box = np.array([[0.12, 0.48], [0.3, 0.48], [0.32, 0.62], [0.1, 0.62]]) * [side, 1.0]
        draw.polygon(canvas.pixels(box), fill=colour)
    elif kind == "hair":
        lock = np.array([[0.03, 0.03], [0.08, 0.08], [0.1, 0.34], [0.04, 0.36], [0.045, 0.1]]) * [side, 1.0]
        draw.polygon(canvas.pixels(lock), fill=byte_colour(hsv(rng.uniform(0, 0.12), 0.5, rng.uniform(0.05, 0.6))))
    elif kind == "hand":
        x, y = rng.uniform(-0.1, 0.1), rng.uniform(0.3, 0.5)
        draw.polygon(
            canvas.pixels(limb(np.array([[0.3 * side, y + 0.12], [0.2 * side, y + 0.08], [x, y]]), (0.04, 0.03))),
            fill=byte_colour(skin),
        )
    elif kind == "object":
        x, y = rng.uniform(-0.25, 0.25), rng.uniform(0.2, cut.hem)
        draw.polygon(canvas.pixels(ellipse(x, y, rng.uniform(0.05, 0.1), rng.uniform(0.05, 0.1))), fill=colour)


def _photograph(picture: Image.Image, resolution: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Reduces the image to the resolution, and adds uneven light, a colour cast, blur and noise."""
    blur = rng.uniform(0.0, 0.35) * picture.width / MIN_SIDE / 2
    if blur > 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    small = picture.resize((resolution, resolution), Image.Resampling.BOX)
    pixels: Floats = np.asarray(small, np.float32) / 255
    light = 1 + np.float32(rng.uniform(0, 0.12)) * soft_noise(resolution, 3, rng)
    cast = rng.normal(1.0, 0.05, 3).astype(np.float32)
    gamma = np.float32(np.exp(rng.normal(0, 0.18)))
    pixels = np.clip(pixels * light[..., None] * cast, 0, 1) ** gamma
    noise = np.float32(rng.uniform(0.005, 0.04))
    pixels = pixels + noise * rng.standard_normal(pixels.shape, np.float32)
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
