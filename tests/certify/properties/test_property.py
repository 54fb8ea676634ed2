"""Properties stated in Python: what they say, what violates them, and what cannot be at all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import certtrain
from certtrain.bounds import Box
from certtrain.certify.properties import Conjunction, Property, Region
from certtrain.errors import ConfigError

# Of the tests that pass what annotations forbid.
pytestmark = pytest.mark.usefixtures("as_users_call")


def two_classes(lower=(0.0, 0.0), upper=(1.0, 1.0)) -> Property:
    """Unsafe: y_0 <= y_1, or y_0 >= 5 and y_1 >= 5."""
    first = ([[1, -1]], [0])
    second = ([[-1, 0], [0, -1]], [-5, -5])
    return Property.from_constraints(list(lower), list(upper), unsafe=[first, second])


@pytest.mark.parametrize(
    ("x", "y", "violated"),
    [
        ([0.5, 0.5], [2, 1], False),
        ([0.5, 0.5], [1, 2], True),
        ([0.5, 0.5], [1, 1], True),  # closed
        ([0.5, 0.5], [6, 5], True),
        ([0.5, 0.5], [6, 4], False),
        ([0.0, 1.0], [1, 2], True),
        ([0.5, 1.5], [1, 2], False),
        ([0.5, 0.5], [float("nan"), 2], False),
        ([0.5, float("nan")], [1, 2], False),
    ],
)
def test_a_counterexample_lies_in_the_box_and_has_an_unsafe_output(x, y, violated):
    assert two_classes().violated(torch.tensor(x), torch.tensor(y)) is violated


def test_an_input_just_outside_in_float64_is_no_counterexample():
    property = two_classes(upper=(0.1, 1.0))
    assert property.violated([0.1, 0.0], [0.0, 1.0])
    assert not property.violated(torch.tensor([0.1, 0.0]), [0.0, 1.0])  # float32's 0.1 is larger


def test_robustness_is_one_region_with_a_row_for_every_other_class():
    image = torch.tensor([[[0.0, 0.5], [0.95, 1.0]]])
    property = Property.robust(image, 2, 0.1, 4)
    (region,) = property.regions
    assert (property.input_shape, property.num_outputs) == ((1, 2, 2), 4)
    assert region.box.lower.dtype == torch.float64
    assert region.box.lower[0].tolist() == [[[0.0, 0.4], [image.double()[0, 1, 0].item() - 0.1, 0.9]]]
    assert region.box.upper[0].tolist() == [[[0.1, 0.6], [1.0, 1.0]]]
    rows = [one.coefficients.tolist() for one in region.unsafe]
    assert rows == [[[-1, 0, 1, 0]], [[0, -1, 1, 0]], [[0, 0, 1, -1]]]
    assert property.violated(image, [0, 0, 1, 1])
    assert not property.violated(image, [0, 0, 2, 1])


def test_an_eps_for_every_pixel_and_no_clipping():
    property = Property.robust(torch.tensor([0.0, 2.0]), 0, [0.5, 0.25], 2, clip=None)
    assert property.regions[0].box.upper.tolist() == [[0.5, 2.25]]


def test_what_is_given_is_copied():
    rows = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    one = Conjunction(rows, torch.zeros(1))
    rows.fill_(7)
    assert one.coefficients.tolist() == [[1, -1]]
    with pytest.raises(AttributeError):
        one.constants = torch.ones(1)


def test_properties_are_compared_by_their_numbers():
    assert two_classes() == two_classes()
    assert two_classes() != two_classes(upper=(1.0, 2.0))
    assert Property(()) != two_classes()


@pytest.mark.parametrize(
    ("rows", "limits", "contradictory"),
    [
        ([[1, 0], [-1, 0]], [0, -1], True),  # y_0 <= 0 and y_0 >= 1
        ([[1, 0], [-1, 0]], [1, -1], False),  # y_0 = 1
        ([[1, -1], [-1, 0], [0, 1]], [-0.25, -1, 1], True),  # y_0 < y_1 <= 1 <= y_0
        ([[1, -1], [-1, 0], [0, 1]], [0, -1, 1], False),
        ([[3, -1], [-1, 1 / 3]], [1, -0.5], False),  # of exact thirds it would be one
        ([[3, -1], [-1.5, 0.5]], [1, -0.6], True),
        ([[0, 0]], [-1], True),
        ([[0, 0]], [0], False),
        ([[1, 1]], [-1], False),
    ],
)
def test_a_contradiction_is_proved_exactly_or_not_claimed(rows, limits, contradictory):
    assert Conjunction(rows, limits).contradictory is contradictory


@given(st.integers(0, 2**32 - 1))
def test_no_contradiction_is_claimed_where_a_point_fulfils_all_rows(seed):
    """Also where it fulfils them with nothing to spare."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-3, 4, (5, 3), generator=generator).double()
    point = torch.randint(-4, 5, (3,), generator=generator).double() / 4
    assert not Conjunction(rows, rows @ point).contradictory


def test_a_property_that_contradicts_itself_has_no_region_left():
    box = Box(torch.zeros(1, 2), torch.ones(1, 2))
    never, sometimes = Conjunction([[1.0], [-1.0]], [0.0, -1.0]), Conjunction([[1.0]], [0.0])
    assert Property((Region(box, (never,)), Region(box, ()))).without_contradictions() == Property(())
    mixed = Property((Region(box, (never, sometimes)),))
    assert mixed.without_contradictions() == Property((Region(box, (sometimes,)),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conjunction([[1.0, float("nan")]], [0.0]), "coefficients must be finite"),
        (lambda: Conjunction([[1.0]], [float("inf")]), "constants must be finite"),
        (lambda: Conjunction([1.0], [0.0]), r"coefficients \[rows, outputs\]"),
        (lambda: Conjunction([[1.0]], [0.0, 1.0]), r"got \[1, 1\] and \[2\]"),
        (lambda: Region(Box(torch.zeros(2, 2), torch.ones(2, 2)), ()), "one input"),
        (lambda: Property(two_classes().regions + two_classes((0,), (1,)).regions), "inputs of one shape"),
        (lambda: Property.from_constraints([0], [1], [([[1.0]], [0]), ([[1.0, 1]], [0])]), "1 and 2 outputs"),
        (lambda: Property.from_constraints([0], [1], [3]), "list of pairs"),
        (lambda: Property.from_constraints([2.0], [1], []), "lies above box.upper"),
        (lambda: Property.robust(torch.zeros(2), 3, 0.1, 3), "from 0 to 2, got 3"),
        (lambda: Property.robust(torch.zeros(2), 0.5, 0.1, 3), "label must be a whole number"),
        (lambda: Property.robust(torch.full((2,), 7.0), 0, 0.1, 3), "clip"),
        (lambda: two_classes().violated([0.0], [1, 2]), "x must have 2 elements"),
        (lambda: two_classes().violated([0.0, 0], [1, 2, 3]), "y must have 2 elements"),
    ],
)
def test_a_mistake_is_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_names_stand_at_the_top():
    assert certtrain.Property is Property
    assert certtrain.read_vnnlib.__module__ == "certtrain.certify.properties.vnnlib"
