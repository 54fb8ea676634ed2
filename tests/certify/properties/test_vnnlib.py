"""VNN-LIB: what VNN-COMP's files say is understood, what is malformed is told with its line, and writing is exact."""

import gzip
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from certtrain.bounds import Box
from certtrain.certify.properties import Conjunction, Property, Region, read_vnnlib, vnnlib_text, write_vnnlib
from certtrain.errors import ConfigError

HEAD = """; comment (with parentheses
(declare-const X_0 Real)
(declare-fun X_1 () Real)
(declare-const Y_0 Real)(declare-const Y_1 Real)
"""
BOX = "(assert (>= X_0 -0.5)) (assert (<= X_0 0.5))\n(assert (and (<= 0.25 X_1) (>= 1e-0 X_1)))\n"


def read(tmp_path: Path, text: str, **options) -> Property:
    path = tmp_path / "property.vnnlib"
    path.write_text(text)
    return read_vnnlib(path, **options)


def rows(property: Property) -> list:
    """Of the only region, each conjunction as (coefficients, constants)."""
    (region,) = property.regions
    return [(one.coefficients.tolist(), one.constants.tolist()) for one in region.unsafe]


def test_a_box_and_a_disjunction_of_conjunctions(tmp_path):
    property = read(
        tmp_path,
        HEAD + BOX + "(assert (or (and (<= Y_0 Y_1) (>= Y_1 3)) (and (>= Y_0 (* 2.0 Y_1)))))",
        input_shape=(1, 2),
    )
    box = property.regions[0].box
    assert (box.lower.tolist(), box.upper.tolist()) == ([[[-0.5, 0.25]]], [[[0.5, 1.0]]])
    assert box.lower.dtype == torch.float64
    assert rows(property) == [([[1, -1], [0, -1]], [0, -3]), ([[-1, 2]], [0])]


@pytest.mark.parametrize(
    ("constraint", "row", "limit"),
    [
        ("(<= Y_0 0.1)", [1, 0], 0.1),
        ("(< Y_0 0.1)", [1, 0], 0.1),
        ("(>= Y_0 0.1)", [-1, 0], -0.1),
        ("(> Y_0 Y_1)", [-1, 1], 0),
        ("(<= -3e-1 Y_1)", [0, -1], 0.3),
        ("(<= (+ Y_0 Y_1 2) (- Y_1 Y_0 1))", [2, 0], -3),
        ("(<= (- Y_0) (- 2))", [-1, 0], -2),
        ("(<= (* 2 3 Y_0) (/ Y_1 4))", [6, -0.25], 0),
        ("(<= (* (+ Y_0 1) 2) (- 5 1))", [2, 0], 2),
    ],
)
def test_linear_constraints_in_all_their_forms(tmp_path, constraint, row, limit):
    assert rows(read(tmp_path, HEAD + BOX + f"(assert {constraint})")) == [([row], [limit])]


def test_an_equation_is_two_rows(tmp_path):
    found = rows(read(tmp_path, HEAD + BOX + "(assert (= Y_0 (+ Y_1 1)))"))
    assert found == [([[1, -1], [-1, 1]], [1, -1])]


def test_several_assertions_hold_together_and_disjunctions_multiply(tmp_path):
    text = "(assert (or (<= Y_0 0) (<= Y_0 1))) (assert (<= Y_1 2)) (assert (or (<= Y_1 3) (<= Y_1 4)))"
    limits = [constants for _, constants in rows(read(tmp_path, HEAD + BOX + text))]
    assert limits == [[2, 0, 3], [2, 0, 4], [2, 1, 3], [2, 1, 4]]


def test_a_disjunction_of_boxes_makes_regions_and_equal_boxes_one(tmp_path):
    def one(low, high, output):
        return f"(and (>= X_0 {low}) (<= X_0 {high}) (>= X_1 0) (<= X_1 1) {output})"

    parts = [one(0, 1, "(<= Y_0 0)"), one(2, 3, "(<= Y_0 Y_1)"), one(0, 1, "(>= Y_0 9)")]
    property = read(tmp_path, HEAD + f"(assert (or {' '.join(parts)}))")
    assert [r.box.lower.tolist() for r in property.regions] == [[[0, 0]], [[2, 0]]]
    assert [[one.constants.tolist() for one in r.unsafe] for r in property.regions] == [[[0], [-9]], [[0]]]


def test_the_tightest_of_several_bounds_counts(tmp_path):
    property = read(tmp_path, HEAD + BOX + "(assert (<= (* 2 X_0) 0.5)) (assert (>= X_0 -7)) (assert (<= Y_0 0))")
    assert property.regions[0].box.upper.tolist() == [[0.25, 1.0]]


def test_an_empty_box_and_false_constants_leave_nothing_that_is_unsafe(tmp_path):
    assert read(tmp_path, HEAD + BOX + "(assert (>= X_0 0.75)) (assert (<= Y_0 0))") == Property(())
    assert read(tmp_path, HEAD + BOX + "(assert (<= 1 0)) (assert (<= Y_0 0))") == Property(())
    some = read(tmp_path, HEAD + BOX + "(assert (or (and (>= X_0 2) (<= Y_0 0)) (<= Y_0 1) false))")
    assert rows(some) == [([[1, 0]], [1])]


def test_contradictory_outputs_are_read_and_left_without_a_region(tmp_path):
    property = read(tmp_path, HEAD + BOX + "(assert (<= Y_0 0)) (assert (>= Y_0 1))")
    assert len(property.regions) == 1
    assert property.without_contradictions().regions == ()


def test_no_constraint_of_outputs_makes_all_of_them_unsafe(tmp_path):
    property = read(tmp_path, HEAD + BOX)
    assert property.violated([0.0, 0.5], [1.0, 2.0])


def test_compressed_files(tmp_path):
    path = tmp_path / "a.vnnlib.gz"
    path.write_bytes(gzip.compress((HEAD + BOX + "(assert (<= Y_0 0))").encode()))
    assert rows(read_vnnlib(path)) == [([[1, 0]], [0])]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigError, match=r"a\.vnnlib\.gz: cannot be read"):
        read_vnnlib(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + BOX + "(assert (<= Y_0 0)", r"line 7: a '\(' without its '\)': the file may be cut off"),
        (HEAD + BOX + "(assert (<= Y_0 0)))", r"line 7: a '\)' without"),
        (HEAD + "Y_0", r"line 5: 'Y_0' stands outside"),
        (HEAD + BOX + "\n(assert (<= Y_0 zero))", "line 8: zero: neither a number nor a variable"),
        (HEAD + BOX + "(assert\n (<= Y_7 0))", "line 8: Y_7: it is not declared"),
        (HEAD + BOX + "(assert (<= Y_0 X_0))", "inputs and outputs together"),
        (HEAD + BOX + "(assert (<= X_1 X_0))", "several inputs"),
        (HEAD + BOX + "(assert (<= (* Y_0 Y_1) 0))", "not linear"),
        (HEAD + BOX + "(assert (<= (/ 1 Y_1) 0))", "only division by a constant"),
        (HEAD + BOX + "(assert (<= (/ Y_1 0) 0))", "only division by a constant"),
        (HEAD + BOX + "(assert (<= (sin Y_1) 0))", r"line 7: \(sin Y_1\): only sums"),
        (HEAD + BOX + "(assert (not (<= Y_1 0)))", r"line 7: \(not \(<= Y_1 0\)\): only and, or"),
        (HEAD + BOX + "(assert (<= Y_1 0 1))", "two sides, this one 3"),
        (HEAD + BOX + "(assert (<= Y_1 1e999))", "too large"),
        (HEAD + BOX + "(assert)", r"line 7: \(assert\): only declare-const"),
        (HEAD + BOX + "(define-fun f () Real 1)", "line 7: .*only declare-const"),
        (HEAD + "(declare-const Z_0 Real)", r"line 5: .*inputs are called X_0"),
        (HEAD + "(declare-const X_0 Real)", "line 5: X_0 is declared in line 2 already"),
        (HEAD + "(declare-const X_2 Int)", r"line 5: .*\(declare-const X_0 Real\)"),
        (HEAD + "(declare-const X_5 Real)", "X_2 is not declared, but X_5 is"),
        (HEAD, "nothing is asserted"),
        ("", "no input X_0 is declared"),
        ("(declare-const X_0 Real)", "no output Y_0 is declared"),
        (HEAD + "(assert (<= X_0 1)) (assert (>= X_0 0))", "X_1 has no lower bound: every input needs both"),
        (HEAD + BOX.replace("(<= X_0 0.5)", "(<= Y_0 0)"), "X_0 has no upper bound"),
        (HEAD + "(" * 200, "line 5: more than 100 parentheses"),
        (HEAD + BOX + "(assert (or (<= Y_0 0) (<= Y_0 1)))" * 18, "line 7: more than 100000 alternatives"),
        ("\x00\x01\xff" * 9, "stands outside"),
    ],
)
def test_malformed_text_is_one_line_with_the_place(tmp_path, text, message):
    with pytest.raises(ConfigError, match=rf"property\.vnnlib.*{message}") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_every_file_that_is_cut_off_is_refused_or_says_less(tmp_path):
    """Never an exception of another kind."""
    text = HEAD + BOX + "(assert (or (and (<= Y_0 Y_1) (>= Y_1 3)) (and (>= Y_0 (* 2.0 Y_1)))))"
    for end in range(len(text) - 1):
        try:
            read(tmp_path, text[:end])
        except ConfigError:
            continue
        assert text[:end].rstrip().endswith(")")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: cannot be read: No such file"):
        read_vnnlib(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="binary: is no text"):
        read_vnnlib(tmp_path / "binary")
    with pytest.raises(ConfigError, match=r"declares 2 inputs, an input of shape \(3,\) has 3"):
        read(tmp_path, HEAD + BOX, input_shape=(3,))


numbers = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, -1.0, 0.1, 5e-324, 1e300])


@st.composite
def properties(draw) -> Property:
    """Regions with different boxes, each with something that is unsafe."""
    shape = draw(st.sampled_from([(1,), (3,), (1, 2, 2)]))
    outputs = draw(st.integers(1, 3))

    def tensor(*size):
        count = int(torch.tensor(size).prod())
        return torch.tensor(draw(st.lists(numbers, min_size=count, max_size=count)), dtype=torch.float64).reshape(size)

    regions: list[Region] = []
    for _ in range(draw(st.integers(1, 3))):
        ends = torch.stack([tensor(1, *shape), tensor(1, *shape)]).sort(0).values
        counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
        unsafe = tuple(Conjunction(tensor(n, outputs), tensor(n)) for n in counts)
        region = Region(Box(ends[0], ends[1]), unsafe)
        if not any(region.box.lower.equal(r.box.lower) and region.box.upper.equal(r.box.upper) for r in regions):
            regions.append(region)
    return Property(tuple(regions))


@given(properties())
def test_writing_and_reading_is_identity(tmp_path_factory, property):
    path = tmp_path_factory.mktemp("written") / "a.vnnlib"
    write_vnnlib(property, path, comment="of a test\nin two lines")
    assert read_vnnlib(path, property.input_shape) == property


def test_common_constraints_are_written_in_the_forms_that_all_tools_read():
    property = Property.from_constraints([0.0], [1e-7], [([[1, -1]], [0]), ([[1, 0], [0, -1]], [2, 3])])
    assert vnnlib_text(property).splitlines() == [
        "(declare-const X_0 Real)",
        "(declare-const Y_0 Real)",
        "(declare-const Y_1 Real)",
        "(assert (>= X_0 0.0))",
        "(assert (<= X_0 0.0000001))",
        "(assert (or",
        "    (and (<= Y_0 Y_1))",
        "    (and (<= Y_0 2.0) (>= Y_1 -3.0))",
        "))",
    ]


def test_nothing_unsafe_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="nothing is unsafe"):
        write_vnnlib(Property(()), tmp_path / "a.vnnlib")
    assert list(tmp_path.iterdir()) == []
