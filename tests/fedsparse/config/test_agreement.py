"""Which settings of a run may be others when it goes on."""

from pathlib import Path
from typing import Any

import pytest

from fedsparse.config import Config
from fedsparse.config.agreement import check_agreement
from fedsparse.errors import ConfigError

RUN = {"rounds": 50, "uplink-budget": "1MB"}
PRIVATE = {"rounds": 50, "dp-epsilon": "2"}


@pytest.mark.parametrize("more", [{"rounds": 60, "uplink-budget": "2MB"}, {"uplink-budget": "2MB"}, {"workers": 3}])
def test_the_budget_of_a_run_may_grow_alone_and_with_the_rounds(more: dict[str, Any]) -> None:
    check_agreement(RUN, Config.from_mapping(RUN | more), Path("run"))


@pytest.mark.parametrize(
    ("run", "more", "line"),
    [
        (RUN, {"rounds": 60}, "only uplink-budget may grow, and rounds with it"),
        (RUN, {"rounds": 40, "uplink-budget": "2MB"}, "only uplink-budget may grow, and rounds with it"),
        (RUN, {"uplink-budget": ""}, "only uplink-budget may grow, and rounds with it"),
        (RUN, {"uplink-budget": "9MB/client"}, "only uplink-budget may grow, and rounds with it"),
        ({"uplink-budget": "8kB/client"}, {"uplink-budget": "9kB/client"}, "only rounds may grow"),
        (PRIVATE, {"rounds": 60}, "nothing may grow, because dp-epsilon is of all rounds"),
    ],
)
def test_what_may_not_grow_is_one_line_that_says_what_may(run: dict[str, Any], more: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=f"; {line}$"):
        check_agreement(run, Config.from_mapping(run | more), Path("run"))
