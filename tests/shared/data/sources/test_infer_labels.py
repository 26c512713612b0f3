from __future__ import annotations

import pytest

from shared.data.sources.infer_labels import CIRCUMSTANCES, LABELS, SIZES, UNITS, words_of


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("PatientID", "patient_id"),
        ("patientId", "patient_id"),
        ("Patient ID", "patient_id"),
        ("SubjectID", "subject_id"),
        ("PATIENT_ID", "patient_id"),
        ("PATIENTID", "patientid"),
        ("XMin", "xmin"),
        ("DX", "dx"),
        ("ROI.X1", "roi_x1"),
        ("ClassId", "class_id"),
        ("Frontal/Lateral", "frontal_lateral"),
        (" Finding Labels ", "finding_labels"),
    ],
)
def test_words_begin_with_a_capital_after_a_small_letter(column: str, words: str) -> None:
    assert words_of(column) == words


@pytest.mark.parametrize(
    ("columns", "known"),
    [
        (("PatientID", "patientId", "PATIENTID", "SubjectID", "LesionId"), UNITS),
        (("ClassId", "ClassName", "FindingLabels"), LABELS),
        (("ViewPosition", "PatientSex", "IsOccluded", "isoccluded"), CIRCUMSTANCES),
        (("ImageWidth", "XMin", "Roi.X1", "Width"), SIZES),
    ],
)
def test_columns_are_known_however_their_words_are_joined(columns: tuple[str, ...], known: frozenset[str]) -> None:
    assert [column for column in columns if words_of(column) not in known] == []
