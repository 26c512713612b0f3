"""Draws clothes. `labels` decides what is drawn, `body` and `shape` where, `cloth`, `pattern` and `fabric` how it looks, `scene` the rest."""

from shared.data.garments.source import garment_image, read_garments

__all__ = ["garment_image", "read_garments"]
