"""What a picture shows: a handful of kinds, with their parameters in the item's YAML."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic


class _Plot(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @property
    def artifact(self) -> str:
        """Name of the records' artifact that it draws, "" where the cells' numbers are enough."""
        return ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Key columns of the cells that it names."""
        return ()


class Dots(_Plot):
    """A table as a picture: published values as bars, every one of ours as a dot."""

    kind: Literal["dots"] = "dots"


class Nothing(_Plot):
    """No picture: the numbers are of different kinds."""

    kind: Literal["none"]


class Lines(_Plot):
    """Curves over a numeric key column: the mean over the units, a band of one standard deviation.

    x, series, panels: key columns (no `panels`: one panel). name: what a series is called, `{}` its
    value. reference: a horizontal line, and what it means. A published value is drawn as a cross.
    """

    kind: Literal["lines"]
    x: str
    series: str
    panels: str = ""
    name: str = "{}"
    x_label: str
    y_label: str
    reference: float | None = None
    reference_label: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.x, self.series, self.panels) if key)


class Scatter(_Plot):
    """Embeddings in the plane around their class vectors, one panel per dataset or network: the
    first unit's. Reads the artifact `scatter` (embeddings, labels, class_vectors).

    Directions alone count, so features are drawn on rings outside the unit circle of the class
    vectors, one ring per class.
    """

    kind: Literal["scatter"]

    @property
    def artifact(self) -> str:
        return "scatter"


class Bars(_Plot):
    """Numbers by rank, largest first, with thresholds and how many reach each. Reads the artifact
    `counts` (counts). thresholds: the key column that holds them."""

    kind: Literal["bars"]
    x_label: str
    y_label: str
    thresholds: str

    @property
    def artifact(self) -> str:
        return "counts"

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.thresholds,)


class Schematic(_Plot):
    """Boxes and arrows. Reads the artifact `diagram` (labels, details, x, y, roles, sources,
    targets, notes)."""

    kind: Literal["schematic"]

    @property
    def artifact(self) -> str:
        return "diagram"


Plot = Annotated[
    Dots | Nothing | Lines | Scatter | Bars | Schematic,
    pydantic.Field(discriminator="kind"),
]
