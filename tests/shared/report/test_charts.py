"""Tests what figures say of themselves."""

from __future__ import annotations

from shared.report.charts import curves

LAST = {"train_loss": 0.1, "train_accuracy": 0.98, "val_loss": 3.46, "val_accuracy": 0.6, "val_macro_f1": 0.5}


def test_training_curves_show_both_accuracies() -> None:
    first = dict.fromkeys((*LAST, "val_rare_macro_f1"), 0.25)
    plot = curves("row-1", "learning rate", [[first, {**LAST, "val_rare_macro_f1": 0.4}]])
    assert plot.alt == (
        "Training curves of learning rate over 1 seed; at the end: loss: training 0.100, validation 3.460; "
        "accuracy: training 0.980, validation 0.600; validation F1: macro-F1 0.500, rare macro-F1 0.400."
    )
    assert [plot.svg.count(f">{title}</text>") for title in ("loss", "accuracy", "validation F1")] == [1, 1, 1]
    assert plot.svg.count(">training</text>") == plot.svg.count(">validation</text>") == 2


def test_scores_that_are_not_defined_are_left_out() -> None:
    plot = curves("real", "real", [[{**LAST, "val_rare_macro_f1": None}] * 2] * 3)
    assert plot.alt.endswith("validation F1: macro-F1 0.500.")
    assert ">rare macro-F1</text>" not in plot.svg
