"""Setting plain values without OmegaConf gives what OmegaConf would."""

import pytest
from omegaconf import OmegaConf

from hypersphere.config import compose, compose_values, split_config
from hypersphere.config.plain import Plain
from hypersphere.errors import UserError
from hypersphere.papers import nodes
from hypersphere.papers.plan import make_plan


def plain(text):
    return Plain(OmegaConf.create(text))


def test_values_are_set_and_interpolations_follow():
    found = plain("{seed: 0, split: {permutation: '${seed}', k: 5}, name: 'run ${split.k}'}")
    assert found.with_values({"seed": 3, "split.k": 2}) == {
        "seed": 3, "split": {"permutation": 3, "k": 2}, "name": "run 2"
    }  # fmt: skip
    assert found.with_values({"split.permutation": 9})["split"] == {"permutation": 9, "k": 5}
    assert found.with_values({})["name"] == "run 5"  # nothing of the calls before is left


def test_types_stay_what_they_are():
    found = plain("{a: null, b: '${a}', c: [1, 2]}")
    for value in (1, 1.5, "text", True, None):
        assert found.with_values({"a": value}) == {"a": value, "b": value, "c": [1, 2]}
    values = {"c": [3]}
    got = found.with_values(values)
    got["c"].append(4)
    assert values["c"] == [3] and found.with_values({})["c"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{a: '???', b: 1}", {"b": 2}),  # a value is missing
        ("{a: {b: 1}}", {"a": {"c": 2}}),  # a table is merged into another
        ("{a: {b: 1, c: '${.b}'}}", {}),  # an interpolation of its neighbour
        ("{a: 1, b: '${a}', c: '${b}'}", {"a": 2}),  # one of another one
        ("{a: {b: 1}, c: '${a}'}", {}),  # one of a table
        ("{a: 1, b: 2}", {"a": "${b}"}),  # one among the values
    ],
)
def test_what_is_unusual_is_left_to_omegaconf(text, values):
    assert plain(text).with_values(values) is None


@pytest.mark.slow
def test_ids_of_whole_plans_are_those_of_full_compositions(monkeypatch):
    """Every training of three papers' exact recipes, composed both ways."""
    asked = {}

    def noted(options, values):
        asked[tuple(options), repr(sorted(values.items()))] = (options, values)
        return compose_values(options, values)

    monkeypatch.setattr(nodes, "compose_values", noted)
    nodes._composed.cache_clear()
    make_plan("paper", ["nsl", "hpn", "fixed-vectors"])
    assert len(asked) > 500
    quick = {key: split_config(compose_values(*each))[0].id for key, each in asked.items()}
    monkeypatch.setattr(Plain, "with_values", lambda *_: None)
    for key, each in asked.items():
        assert split_config(compose_values(*each))[0].id == quick[key]


def test_a_missing_value_is_named_as_before():
    with pytest.raises(UserError, match="Missing mandatory value: name"):
        compose_values(["data=in_memory"], {"seed": 1})
    assert compose_values(["paper=nsl"], {}) == compose(["paper=nsl"])
