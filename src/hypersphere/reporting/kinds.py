"""What a picture shows: a handful of kinds, with their parameters in the item's YAML."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

ClassNames = tuple[str, ...] | Literal["dataset"]


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

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """Values of key columns that it names: a cell must have each."""
        return {}


class Dots(_Plot):
    """A table as a picture: published values as bars, every one of ours as a dot."""

    kind: Literal["dots"] = "dots"


class Nothing(_Plot):
    """No picture: the numbers are of different kinds."""

    kind: Literal["none"]


class Lines(_Plot):
    """Curves over a numeric key column: the mean over the units, a band of one standard deviation.

    x, series, panels: key columns (no `panels`: one panel). name, panel_name: what a series or a
    panel is called, `{}` its value. reference: a horizontal line, and what it means. A published
    value is drawn as a cross.
    """

    kind: Literal["lines"]
    x: str
    series: str
    panels: str = ""
    name: str = "{}"
    panel_name: str = "{}"
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


class Embedding(_Plot):
    """Test images where the network puts them, in two or three dimensions: one panel per value of
    `rows` and `columns`, of the first unit. Reads the artifact `scatter` (embeddings, labels,
    where a head has fixed targets, targets, and where the points have a number, values).

    measure: the key column that names what a cell measures. captions: measures written beneath each
    panel, `{}` the mean and deviation over the units. on_sphere: key -> values whose panels show
    the directions alone, on the unit circle or sphere (several keys: all must fit). by_value: key
    -> values whose panels are coloured by the points' numbers instead of their classes;
    value_label: what those numbers are, with their unit. class_names: of the classes in the order
    of their labels; `dataset`: those of the dataset; none: they are called by these. crosses: what
    the targets are. dots: what the points are, if no test images.
    """

    kind: Literal["embedding"]
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    measure: str
    on_sphere: dict[str, tuple[str, ...]] = {}
    by_value: dict[str, tuple[str, ...]] = {}
    value_label: str = ""
    class_names: ClassNames = ()
    crosses: str = "target"
    dots: str = "test images"
    captions: dict[str, str] = {}

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Embedding:
        placed = [*self.rows, *self.columns, self.measure]
        if len(set(placed)) < len(placed):
            raise ValueError(f"rows, columns and measure must be different keys, not {placed}")
        for name, text in self.captions.items():
            if text.count("{}") != 1:
                raise ValueError(f"caption of {name!r}: {text!r} needs one {{}} for the number")
        if bool(self.by_value) != bool(self.value_label):
            raise ValueError("by_value and value_label (what the colours mean) go together")
        return self

    @property
    def artifact(self) -> str:
        return "scatter"

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.rows, *self.columns, self.measure, *self.on_sphere, *self.by_value)

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        shown = {
            key: (*self.on_sphere.get(key, ()), *self.by_value.get(key, ()))
            for key in (*self.on_sphere, *self.by_value)
        }
        return {**shown, self.measure: tuple(self.captions)}


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


class Matrices(_Plot):
    """Cosines between class vectors, one matrix per value of the key `panels` (`name`: what it is
    called, `{}` the value), of the first unit, and for the value `confusions` how often classes are
    confused by their cosine. Reads the artifact `similarity` (cosines, confusions).

    measure: the key column that names what a cell measures; caption: the measure written beside the
    confusions. class_names: of the classes in the order of their labels, or `dataset`: those of the
    dataset; where there are others, classes have numbers.
    """

    kind: Literal["matrices"]
    panels: str
    name: str = "{}"
    confusions: str
    measure: str
    caption: str
    class_names: ClassNames = ()

    @property
    def artifact(self) -> str:
        return "similarity"

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.panels, self.measure)

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        return {self.panels: (self.confusions,), self.measure: (self.caption,)}


class Schematic(_Plot):
    """Boxes and arrows. Reads the artifact `diagram` (labels, details, x, y, roles, sources,
    targets, notes)."""

    kind: Literal["schematic"]

    @property
    def artifact(self) -> str:
        return "diagram"


class Exemplars(_Plot):
    """Images in rows of `columns`: the one example of some new classes, with how many test images
    of its class it recognises, then test images that were recognised and that were mistaken, each
    above the example it was taken for. Of the first unit. Reads the artifact `exemplars`
    (evaluation/exemplars.py)."""

    kind: Literal["exemplars"]
    columns: Annotated[int, pydantic.Field(ge=1)] = 8

    @property
    def artifact(self) -> str:
        return "exemplars"


Plot = Annotated[
    Dots | Nothing | Lines | Scatter | Embedding | Bars | Matrices | Schematic | Exemplars,
    pydantic.Field(discriminator="kind"),
]
