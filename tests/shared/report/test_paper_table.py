"""Compares some rows of the paper's Table 3 with the printed ones."""

from __future__ import annotations

from shared.report.paper_table import PAPER_ROWS


def test_fourteen_rows_as_printed() -> None:
    assert list(PAPER_ROWS) == list(range(1, 15))
    first, best = PAPER_ROWS[1], PAPER_ROWS[14]
    assert (first.test_loss, first.test_accuracy, first.augmentation, first.lr) == (3.46, 0.6540, "basic", 9.453e-3)
    assert (best.batch_size, best.lr, best.weight_decay, best.beta2, best.test_accuracy) == (
        76,
        6.256e-4,
        7.580e-4,
        0.9901,
        0.7089,
    )


def test_the_paper_at_equal_parameters() -> None:
    """Rows 6 and 12 differ in augmentation alone, and the synthetic one is worse."""
    six, twelve = PAPER_ROWS[6], PAPER_ROWS[12]
    same = ("batch_size", "lr", "weight_decay", "label_smoothing", "dropout", "beta1", "beta2")
    assert all(getattr(six, name) == getattr(twelve, name) for name in same)
    assert twelve.test_accuracy < six.test_accuracy
