"""Numbers of a whole curve, on made-up curves."""

import math
import statistics

import pytest

from hypersphere.papers.curves import of_curve


def record(*accuracies):
    epochs = [{"epoch": i, "loss": 1.0, "test_accuracy": a} for i, a in enumerate(accuracies, 1)]
    return {"epochs": epochs}


RISING = record(0.1, 0.3, 0.5, 0.46, 0.51, 0.5)


def test_an_epoch_by_its_number():
    assert of_curve(RISING, "test_accuracy@2") == 0.3
    assert math.isnan(of_curve(RISING, "test_accuracy@7"))


def test_the_first_epoch_at_nine_tenths_of_the_best():
    assert of_curve(RISING, "epochs_to_90_percent") == 3
    assert of_curve(record(0.1, 0.2, 0.5, 0.1), "epochs_to_90_percent") == 3  # not the first
    assert of_curve(record(0.2), "epochs_to_90_percent") == 1
    assert math.isnan(of_curve({"epochs": []}, "epochs_to_90_percent"))


def test_roughness_is_that_of_the_first_two_fifths():
    curve = [0.0, 0.1, 0.3, 0.2] + [0.9, 0.1] * 3  # 4 of 10
    expected = statistics.stdev([0.1, 0.2, -0.1])
    assert of_curve(record(*curve), "roughness") == pytest.approx(expected)
    # of six epochs three, the least that has two changes
    assert of_curve(RISING, "roughness") == pytest.approx(statistics.stdev([0.2, 0.2]))
    assert math.isnan(of_curve(record(0.1, 0.2), "roughness"))


@pytest.mark.parametrize("name", ["test_accuracy", "loss", "roughness@3", "wrong"])
def test_other_names_are_no_curve(name):
    assert of_curve(RISING, name) is None


def test_a_head_that_does_not_classify_has_no_curve():
    nothing = {"epochs": [{"epoch": 1, "loss": 1.0}]}
    assert math.isnan(of_curve(nothing, "epochs_to_90_percent"))
