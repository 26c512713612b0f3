from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from shared.deploy.licences import HUB_IDS, check_licence, data_licence, hub_licence
from shared.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("Apache 2.0", {"license": "apache-2.0"}),
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("foo bar", {"license": "other", "license_name": "foo-bar"}),
        ("Acme: internal use\n(v2)", {"license": "other", "license_name": "acme-internal-use-v2"}),
        ("other", {"license": "other", "license_name": "other"}),
        (None, {"license": "other", "license_name": "not-stated"}),
    ],
)
def test_a_card_names_a_licence_as_the_hub_takes_it(given: str | None, expected: dict[str, str]) -> None:
    found = hub_licence(given)
    assert found == expected
    assert found["license"] in {*HUB_IDS, "other"}
    assert re.fullmatch(r"[a-z0-9.-]+", found.get("license_name", "x"))


def test_the_ids_are_in_the_form_in_which_text_is_looked_up() -> None:
    assert all(hub_licence(name) == {"license": name} for name in HUB_IDS)


def test_what_tailfill_draws_has_a_licence_and_other_data_have_none_that_is_known() -> None:
    assert data_licence("garments") == {
        "source": "garments", "licence": "apache-2.0", "note": "tailfill drew these images itself",
    }  # fmt: skip
    assert data_licence("csv") == {"source": "csv", "licence": None, "note": None}
    assert "forbid" in str(data_licence("deepfashion")["note"])
    assert "Apache License" in (Path(__file__).parents[3] / "LICENSE").read_text()[:200]


@pytest.mark.parametrize("given", ["", " ", "–", "許可"])
def test_a_licence_without_a_name_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="must have letters or digits"):
        check_licence(given)


def test_a_slip_of_the_pen_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tailfill"):
        for given in ("mit", None, "apache-2"):
            check_licence(given)
    (said,) = (record.getMessage() for record in caplog.records)
    assert "apache-2: is none of the hub's licences; did you mean apache-2.0?" in said
    assert "license: other, license_name: apache-2" in said
