"""Charts that W&B does not bring along, as Vega-Lite: a heat map over two settings, and the stages of a certification.

They read tables that every run logs, of all runs that are shown together. `${field:...}` is what a panel fills in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
# Of failures, falsified, verified and open images: colours that everyone can tell apart.
OUTCOMES = {"verified": "#009E73", "falsified": "#D55E00", "failed": "#CC3311", "left": "#BBBBBB"}


@dataclass(frozen=True)
class Chart:
    """A definition that panels refer to.

    Attributes:
        name: In W&B, behind the entity that owns it.
        title: For people.
        spec: Vega-Lite.
    """

    name: str
    title: str
    spec: Mapping[str, Any]

    def id(self, entity: str) -> str:
        """How panels name it."""
        return f"{entity}/{self.name}"


def _number_in_cell() -> dict[str, Any]:
    return {
        "mark": {"type": "text"},
        "encoding": {
            "text": {"aggregate": "mean", "field": "${field:value}", "type": "quantitative", "format": ".3f"},
            "color": {"value": "#222222"},
        },
    }


HEAT_MAP = Chart(
    "certtrain-heat-map",
    "certtrain: heat map",
    {
        "$schema": SCHEMA,
        "title": "${string:title}",
        "data": {"name": "wandb"},
        "encoding": {
            "x": {"field": "${field:x}", "type": "ordinal", "sort": "ascending"},
            "y": {"field": "${field:y}", "type": "ordinal", "sort": "descending"},
        },
        # Seeds fall into one cell, which shows their mean.
        "layer": [
            {
                "mark": {"type": "rect", "tooltip": {"content": "data"}},
                "encoding": {
                    "color": {
                        "aggregate": "mean",
                        "field": "${field:value}",
                        "type": "quantitative",
                        "scale": {"scheme": "viridis"},
                    }
                },
            },
            _number_in_cell(),
        ],
    },
)

WATERFALL = Chart(
    "certtrain-waterfall",
    "certtrain: what each stage settled",
    {
        "$schema": SCHEMA,
        "title": "${string:title}",
        "data": {"name": "wandb"},
        "transform": [{"fold": list(OUTCOMES), "as": ["outcome", "images"]}],
        "mark": {"type": "bar", "tooltip": {"content": "data"}},
        "encoding": {
            # In the order in which stages are asked, which is that of the table.
            "y": {"field": "${field:stage}", "type": "nominal", "sort": None},
            "x": {"aggregate": "mean", "field": "images", "type": "quantitative", "title": "images, mean over runs"},
            "color": {
                "field": "outcome",
                "type": "nominal",
                "scale": {"domain": list(OUTCOMES), "range": list(OUTCOMES.values())},
            },
            "row": {"field": "${field:setting}", "type": "nominal"},
        },
    },
)

CHARTS = (HEAT_MAP, WATERFALL)
