"""Holds the results of the paper, which the report shows beside those of the study.

Source: R. J. Bugnot, S. A. Majid, X. Xinye, *Using Synthetic Image Generation for Maximizing the Performance of a Multi-label,
Multi-class Image Classification Model* (Nanyang Technological University, 29 April 2024), Table 3. Each row is one run, and the test
split is the authors' own (14,000 / 2,000 / 4,000 images).
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Bugnot, Majid and Xinye (2024), Table 3"


@dataclass(frozen=True)
class PaperRow:
    """Holds a row of Table 3 as printed."""

    index: int
    batch_size: int
    lr: float
    weight_decay: float
    label_smoothing: float
    augmentation: str
    dropout: float
    beta1: float
    beta2: float
    test_loss: float
    test_accuracy: float
    """Gives the test accuracy as a share, 0 to 1 (the paper prints per cent)."""


PAPER_ROWS: dict[int, PaperRow] = {
    row.index: row
    for row in (
        PaperRow(1, 256, 9.453e-3, 0.0, 0.0, "basic", 0.0, 0.9, 0.999, 3.46, 0.6540),
        PaperRow(2, 256, 9.453e-3, 8.875e-4, 0.0, "basic", 0.0, 0.9, 0.999, 1.111, 0.6544),
        PaperRow(3, 256, 9.453e-3, 8.875e-4, 9.311e-3, "basic", 0.0, 0.9, 0.999, 0.825, 0.6573),
        PaperRow(4, 256, 9.453e-3, 8.875e-4, 0.0, "soft", 0.0, 0.9, 0.999, 0.785, 0.6742),
        PaperRow(5, 256, 9.453e-3, 8.875e-4, 9.311e-3, "soft", 0.0, 0.9, 0.999, 0.743, 0.6664),
        PaperRow(6, 256, 9.453e-3, 8.875e-4, 9.311e-3, "soft", 0.461, 0.9, 0.999, 0.723, 0.6807),
        PaperRow(7, 359, 9.453e-3, 8.875e-4, 9.311e-3, "soft", 0.461, 0.9, 0.999, 0.728, 0.6784),
        PaperRow(8, 140, 3.295e-3, 8.100e-4, 2.500e-3, "soft", 0.450, 0.891, 0.9923, 0.741, 0.6858),
        PaperRow(9, 256, 3.032e-3, 2.730e-3, 4.369e-4, "soft", 0.266, 0.9, 0.999, 0.795, 0.6681),
        PaperRow(10, 256, 3.032e-3, 2.730e-3, 4.370e-4, "soft", 0.266, 0.9, 0.999, 0.779, 0.6672),
        PaperRow(11, 256, 3.032e-3, 2.730e-3, 4.370e-4, "hard", 0.266, 0.9, 0.999, 0.765, 0.6728),
        PaperRow(12, 256, 9.453e-3, 8.875e-4, 9.311e-3, "synthetic", 0.461, 0.9, 0.999, 0.714, 0.6698),
        PaperRow(13, 324, 7.166e-3, 3.935e-3, 1.677e-3, "synthetic", 0.174, 0.910, 0.9911, 0.696, 0.6974),
        PaperRow(14, 76, 6.256e-4, 7.580e-4, 5.438e-3, "synthetic", 0.165, 0.909, 0.9901, 0.674, 0.7089),
    )
}
