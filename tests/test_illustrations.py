"""Illustrations worked out on live heads, and the figure of classes and a number on one sphere."""

import math

import numpy as np
import pytest
import torch

from hypersphere.data.splits import Split
from hypersphere.evaluation import values
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.heads import JointPrototypes, Poles
from hypersphere.losses import squared_cosine
from hypersphere.papers.plan import make_plan
from hypersphere.training.diagram import imprinting
from hypersphere.training.illustrations import (
    decision_regions,
    discretized,
    gradient_of_squared_cosine,
    interpolated,
    to_number,
    to_prototypes,
)

PROTOTYPES = {
    "_target_": "hypersphere.heads.Prototypes", "name": "prototypes", "placement": "published",
    "placement_seed": 0, "reduction": "sum",
}  # fmt: skip
POLES = {
    "_target_": "hypersphere.heads.Poles", "name": "poles", "bounds": [-1, 1], "reduction": "sum",
}  # fmt: skip


def unit(points):
    points = points.astype(float)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_the_sphere_is_cut_into_cells_around_the_nearest_prototype():
    found = discretized(head=PROTOTYPES, num_classes=10, outputs=2000)
    arrays = found["scatter"]
    distances = np.linalg.norm(unit(arrays["embeddings"])[:, None] - arrays["targets"], axis=2)
    nearest = distances.argmin(1)
    assert (nearest == arrays["labels"]).mean() > 0.99  # float16 moves a few over an edge
    shares = 100 * np.bincount(arrays["labels"], minlength=10) / 2000
    assert (found["least"], found["most"]) == pytest.approx((shares.min(), shares.max()))
    # ten points are at most 66.1468 degrees apart (Sloane's tables)
    assert 62 < found["angle"] < 66.1469 and "values" not in arrays


def test_the_number_rises_along_the_axis_of_the_poles():
    found = interpolated(head=POLES, outputs=500)
    arrays = found["scatter"]
    upper, lower = arrays["targets"]
    assert found["angle"] == pytest.approx(180) and (upper == -lower).all()
    assert arrays["values"] == pytest.approx(unit(arrays["embeddings"]) @ upper, abs=2e-3)
    assert -1 <= found["least"] < -0.9 and 0.9 < found["most"] <= 1


@pytest.mark.parametrize("pole", ["first", "last"])
def test_the_poles_are_where_the_bounds_are_predicted(pole):
    head = JointPrototypes(3, 5, bounds=[20.0, 50.0], reduction="sum", pole=pole,
                           placement="published", placement_seed=0)  # fmt: skip
    assert head.predict(head.poles).tolist() == [50.0, 20.0]
    assert Poles(4, 1, bounds=[0.0, 1.0], reduction="sum").poles.shape == (2, 4)


def test_equation_2_is_the_gradient_of_the_loss():
    """Against differences of the loss by hand, for outputs on both sides of the prototype."""
    z = torch.tensor([[0.3, -2.0, 0.5], [-1.0, 0.2, 0.4]], dtype=torch.float64)
    p = torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]], dtype=torch.float64)
    printed, step = gradient_of_squared_cosine(z, p), 1e-6
    for i in range(3):
        move = torch.zeros_like(z)
        move[:, i] = step
        ahead, behind = (squared_cosine(z + s * move, p, torch.arange(2)) for s in (1, -1))
        assert torch.allclose((ahead - behind) / (2 * step), printed[:, i], atol=1e-8)


def test_outputs_reach_their_own_prototype():
    found = to_prototypes(head=PROTOTYPES, num_classes=10, outputs=6, steps=200, lr=0.1)
    arrays = found["scatter"]
    path = arrays["embeddings"].reshape(201, 6, 3)
    assert arrays["labels"].reshape(201, 6)[-1].tolist() == list(range(6))
    angles = arrays["values"].reshape(201, 6)
    assert (np.diff(angles, axis=0) < 0).all(), "every step brings every output nearer"
    ends = (unit(path[-1]) * arrays["targets"][:6]).sum(1)
    assert np.degrees(np.arccos(ends)) == pytest.approx(angles[-1], abs=0.5)
    assert found["end"] == pytest.approx(angles[-1].max()) and found["end"] < 15 < found["start"]
    # eq. 2 is the gradient of the loss that is taken, not of eq. 1 with its absolute value
    assert found["closest"] < 1e-6 < 1 < found["absolute"]


def test_outputs_reach_the_circle_of_their_number():
    found = to_number(
        head={**POLES, "bounds": [0, 180]}, number=45.0, outputs=20, steps=300, lr=0.1
    )
    arrays = found["scatter"]
    ends = arrays["embeddings"].reshape(301, 20, 3)[-1]
    assert unit(ends) @ arrays["targets"][0] == pytest.approx(45 / 90 - 1, abs=2e-3)
    assert found["end"] < 1e-3 < 10 < found["start"] and found["turn"] < 1e-3
    # around the whole circle, not at one place of it
    assert np.ptp(np.arctan2(ends[:, 2].astype(float), ends[:, 1])) > math.pi


def test_heads_that_cannot_be_shown_are_refused():
    with pytest.raises(ValueError, match="Poles has no fixed prototypes"):
        discretized(head=POLES, num_classes=2, outputs=3)
    with pytest.raises(ValueError, match="Prototypes has no poles"):
        to_number(head={**PROTOTYPES, "steps": 1}, number=0.0, outputs=1, steps=1, lr=0.1)


@pytest.mark.parametrize("name", ["figure1", "figure2", "figure3"])
def test_illustrations_are_the_same_in_every_preset(name):
    plans = [make_plan(preset, ["hpn"], [name]) for preset in ("quick", "small", "paper")]
    assert {*plans[0].nodes} == {*plans[1].nodes} == {*plans[2].nodes}
    assert not plans[0].trainings() and {i.settings.protocol for p in plans for i in p.items} == {
        "exact"
    }


def test_classes_and_rotation_on_one_sphere_as_the_paper_says():
    for preset in ("small", "paper"):
        (item,) = make_plan(preset, ["hpn"], ["figure5"]).items
        assert item.settings.protocol == "exact"
        nodes = {node.training.id: node for cell in item.cells for node in cell.nodes.values()}
        assert len(nodes) == 17  # both views are of the same networks
        raw = next(iter(nodes.values())).training.raw
        assert raw["data"]["name"] == "rotated_mnist" and raw["data"]["target"] == "angle"
        assert raw["head"] | {"pole": "last", "weight": None, "bounds": [0, 180]} == raw["head"]
        assert (raw["optimizer"]["lr"], raw["optimizer"]["momentum"]) == (0.01, 0.9)
        assert (raw["optimizer"]["weight_decay"], raw["batches"]["size"]) == (1e-4, 128)
        assert (raw["backbone"]["filters"], raw["backbone"]["dim"]) == ([32, 64], 3)
    head = item.trainings[0].components["head"].build(3, 5)
    # five equal slices of the xy-plane, poles along z
    turns = torch.atan2(head.class_vectors[:, 1], head.class_vectors[:, 0]).sort().values
    assert turns.diff().rad2deg().tolist() == pytest.approx([72] * 4, abs=1e-3)
    assert not head.class_vectors[:, 2].any() and head.poles.tolist() == [[0, 0, 1], [0, 0, -1]]


def test_outputs_too_long_for_float16_are_saved_all_the_same():
    head = JointPrototypes(3, 2, bounds=[0.0, 1.0], reduction="sum", pole="last",
                           placement="published", placement_seed=0)  # fmt: skip
    z = torch.tensor([[1e6, 0.0, 2e6], [-1e6, 0.0, 0.0]])
    labels, numbers = torch.tensor([0, 1]), torch.tensor([0.9, 0.5])
    for scale, kind in ((1.0, np.float32), (1e-6, np.float16)):
        e = Embeddings(z * scale, labels, z * scale, labels, numbers, numbers)
        saved = values(head, e, Split((0, 1), ()), 0, points=2)["scatter"]["embeddings"]
        assert saved.dtype == kind and np.isfinite(saved).all()


# Imprinting

COSINE = {"_target_": "hypersphere.heads.NormalizedSoftmax", "name": "x", "scale": 10.0}
REGIONS = {"angles": [20.0, 95.0, 160.0, 235.0], "outputs": 3000, "steps": 100, "lr": 0.1}


def test_an_imprinted_example_takes_its_region_from_its_neighbours():
    before, after = (
        decision_regions(head=COSINE, example=305.0, imprinted=imprinted, **REGIONS)
        for imprinted in (False, True)
    )
    assert before["new"] == 0 and before["kept"] == after["kept"] == 100
    assert after["angle"] == pytest.approx(0, abs=0.1) and before["angle"] > 30
    turned = before["scatter"]["targets"].astype(float) @ [
        math.cos(math.radians(305)), math.sin(math.radians(305))
    ]  # fmt: skip
    assert before["angle"] == pytest.approx(math.degrees(math.acos(turned.max())), abs=1e-3)
    first, second = before["scatter"], after["scatter"]
    assert len(first["targets"]) == 4 and len(second["targets"]) == 5
    assert second["targets"][:4] == pytest.approx(first["targets"], abs=1e-6)
    assert (first["embeddings"] == second["embeddings"]).all()
    angle = np.degrees(np.arctan2(*second["targets"].T[::-1])) % 360
    for c, wanted in enumerate(REGIONS["angles"]):  # trained, not put there
        assert abs((angle[c] - wanted + 180) % 360 - 180) < 60
    # eq. 7: the nearest class vector on the circle, and so half-way to both neighbours
    own = np.degrees(np.arctan2(*second["embeddings"].T[::-1].astype(float))) % 360
    away = np.abs((own[:, None] - angle + 180) % 360 - 180)
    assert (away.argmin(1) == second["labels"]).mean() > 0.99  # float16 moves a few over an edge
    left, right = sorted((angle[:4] - 305) % 360)[:: len(angle) - 2]
    assert after["new"] == pytest.approx((left + 360 - right) / 2 / 3.6, abs=3)


def test_regions_need_a_head_that_can_be_imprinted():
    linear = {"_target_": "hypersphere.heads.Softmax", "name": "x", "bias": True}
    with pytest.raises(ValueError, match="Softmax cannot be imprinted: .*bias"):
        decision_regions(head=linear, example=305.0, imprinted=True, **REGIONS)


def test_the_architecture_is_drawn_from_the_network_that_is_imprinted():
    words = ["split=base_novel", "split.num_base=6", "head=cosine", "evaluations=none",
             "backbone.filters=[4,4]", "backbone.dim=8"]  # fmt: skip
    found = imprinting(overrides=words, shots=2)
    assert found["length"] == pytest.approx(1) and found["old_logits"] < 1e-5
    assert found["classes"] == 10
    diagram = found["diagram"]
    details = list(diagram["details"])
    for text in ("1 x 8 x 8", "to 8 dimensions", "6 x 8, s times cosine", "6 base classes",
                 "2 of each of 4", "8 x 8 embeddings", "10 x 8, s times cosine"):  # fmt: skip
        assert text in details
    assert list(diagram["roles"]).count("new") == 1
    assert max(diagram["targets"]) < len(details)
