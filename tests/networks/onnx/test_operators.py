"""Every operator, in the forms that its versions have: as onnxruntime computes it, and traced."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_models import by_onnxruntime, ints, model, node, numbers, save

from certtrain.networks import from_onnx, parameters, trace
from certtrain.networks.onnx.operators import OPERATORS

IMAGE, FLAT, SIGNAL = (1, 2, 6, 5), (1, 7), (1, 3, 8)
K33, K22 = {"kernel_shape": [3, 3]}, {"kernel_shape": [2, 2]}
TRUE, FALSE = np.array(True), np.array(False)
NONE = np.array([], dtype=np.int64)


def scalar(value):
    return np.array(value, dtype=np.float32)


# Name -> nodes, input shape, and the version of the operators where it matters.
CASES = {
    "Add a vector": ([node("Add", numbers(7))], FLAT),
    "Add channels": ([node("Add", numbers(2, 1, 1))], IMAGE),
    "Add one number": ([node("Add", scalar(0.7))], IMAGE),
    "Add with all axes": ([node("Add", numbers(1, 2, 6, 5))], IMAGE),
    "Add that repeats": ([node("Add", numbers(3, 7))], FLAT),
    "Add that repeats an axis": ([node("Add", numbers(4, 1, 7))], (1, 1, 7)),
    "Add to no batch": ([node("Add", numbers(5))], (5,)),
    "Sub": ([node("Sub", numbers(7))], FLAT),
    "Mul": ([node("Mul", numbers(2, 1, 1))], IMAGE),
    "Mul elements": ([node("Mul", numbers(2, 6, 5))], IMAGE),
    "Div": ([node("Div", numbers(7) + 5)], FLAT),
    "Neg": ([node("Neg")], FLAT),
    "Sum": ([node("Sum", numbers(7), numbers(1, 7, seed=1))], FLAT),
    "Gemm": ([node("Gemm", numbers(7, 4), numbers(4))], FLAT),
    "Gemm transposed": ([node("Gemm", numbers(4, 7), scalar(0.5), transB=1, alpha=0.5, beta=2.0)], FLAT),
    "Gemm of a column": ([node("Gemm", numbers(7, 4), numbers(1, 4), transA=1)], (7, 1)),
    "MatMul": ([node("MatMul", numbers(7, 4))], FLAT),
    "MatMul a vector": ([node("MatMul", numbers(7))], FLAT),
    "MatMul of no batch": ([node("MatMul", numbers(7, 4))], (7,)),
    "MatMul at every position": ([node("MatMul", numbers(5, 4))], IMAGE),
    "MatMul of an image of one row": ([node("MatMul", numbers(5, 4))], (1, 1, 1, 5)),
    "Conv": ([node("Conv", numbers(3, 2, 3, 3), numbers(3))], IMAGE),
    "Conv with everything": (
        [node("Conv", numbers(4, 1, 2, 2), group=2, strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 3])],
        IMAGE,
    ),
    "Conv of a signal": ([node("Conv", numbers(4, 3, 3), pads=[1, 1], strides=[2])], SIGNAL),
    "Conv of a signal, other border": ([node("Conv", numbers(4, 3, 3), pads=[0, 2])], SIGNAL),
    "Conv same upper": ([node("Conv", numbers(3, 2, 2, 3), auto_pad="SAME_UPPER", strides=[2, 2])], IMAGE),
    "Conv same lower": ([node("Conv", numbers(3, 2, 2, 3), auto_pad="SAME_LOWER")], IMAGE),
    "Conv valid": ([node("Conv", numbers(3, 2, 2, 3), auto_pad="VALID")], IMAGE),
    "ConvTranspose": (
        [node("ConvTranspose", numbers(2, 2, 3, 2), numbers(2), strides=[2, 2], pads=[1, 0, 1, 0], dilations=[1, 2])],
        IMAGE,
    ),
    "ConvTranspose in groups": (
        [node("ConvTranspose", numbers(2, 2, 3, 3), group=2, strides=[2, 2], output_padding=[1, 1])],
        IMAGE,
    ),
    "BatchNormalization": (
        [node("BatchNormalization", *(numbers(2, seed=i) for i in range(3)), abs(numbers(2)) + 0.5, epsilon=0.01)],
        IMAGE,
    ),
    "BatchNormalization of vectors": (
        [node("BatchNormalization", *(numbers(7, seed=i) for i in range(3)), abs(numbers(7)) + 0.5)],
        FLAT,
    ),
    "Relu": ([node("Relu")], FLAT),
    "LeakyRelu": ([node("LeakyRelu")], FLAT),
    "LeakyRelu steep": ([node("LeakyRelu", alpha=0.3)], FLAT),
    "Sigmoid": ([node("Sigmoid")], FLAT),
    "Tanh": ([node("Tanh")], FLAT),
    "HardSigmoid": ([node("HardSigmoid", alpha=0.3, beta=0.4)], FLAT),
    "Clip": ([node("Clip", scalar(-0.5), scalar(0.75))], FLAT),
    "Clip from zero": ([node("Clip", scalar(0))], FLAT),
    "Clip from below": ([node("Clip", scalar(-0.5))], FLAT),
    "Clip as it was": ([node("Clip", min=-0.5, max=0.75)], FLAT, 6),
    "Clip as it was, open": ([node("Clip", max=0.75)], FLAT, 6),
    "Clip that is none": ([node("Clip")], FLAT),
    "MaxPool": ([node("MaxPool", **K22)], IMAGE),
    "MaxPool with everything": ([node("MaxPool", **K33, strides=[2, 1], pads=[1, 1, 1, 1], dilations=[1, 1])], IMAGE),
    "MaxPool dilated": ([node("MaxPool", **K22, dilations=[2, 3])], IMAGE),
    "MaxPool up": ([node("MaxPool", **K22, strides=[3, 2], ceil_mode=1)], IMAGE),
    "MaxPool other border": ([node("MaxPool", **K33, strides=[2, 2], pads=[0, 2, 1, 0])], IMAGE),
    "MaxPool same": ([node("MaxPool", **K22, strides=[2, 2], auto_pad="SAME_UPPER")], IMAGE),
    "MaxPool of a signal": ([node("MaxPool", kernel_shape=[3], strides=[2], pads=[2, 0])], SIGNAL),
    "AveragePool": ([node("AveragePool", **K22, strides=[2, 2])], IMAGE),
    "AveragePool not counting": ([node("AveragePool", **K33, pads=[1, 1, 1, 1])], IMAGE),
    "AveragePool counting": ([node("AveragePool", **K33, pads=[1, 1, 1, 1], count_include_pad=1)], IMAGE),
    "AveragePool other border": ([node("AveragePool", **K33, pads=[0, 2, 1, 0], count_include_pad=1)], IMAGE),
    "AveragePool up to nothing": ([node("AveragePool", kernel_shape=[2, 5], strides=[2, 2], ceil_mode=1)], IMAGE),
    "AveragePool of a signal": ([node("AveragePool", kernel_shape=[4], strides=[2])], SIGNAL),
    "GlobalAveragePool": ([node("GlobalAveragePool")], IMAGE),
    "GlobalAveragePool of a signal": ([node("GlobalAveragePool")], SIGNAL),
    "GlobalMaxPool": ([node("GlobalMaxPool")], IMAGE),
    "ReduceMean of an image": ([node("ReduceMean", axes=[2, 3])], IMAGE),
    "ReduceMean without axes kept": ([node("ReduceMean", axes=[-1, -2], keepdims=0)], IMAGE),
    "ReduceMean of channels": ([node("ReduceMean", ints(1, 3), keepdims=0)], IMAGE, 18),
    "ReduceMean of all": ([node("ReduceMean", keepdims=0)], IMAGE),
    "ReduceMean of the batch": ([node("ReduceMean", axes=[0], keepdims=0)], IMAGE),
    "ReduceMean of nothing": ([node("ReduceMean", NONE, noop_with_empty_axes=1)], IMAGE, 18),
    "ReduceSum": ([node("ReduceSum", ints(1), keepdims=0)], IMAGE),
    "Flatten": ([node("Flatten")], IMAGE),
    "Flatten later": ([node("Flatten", axis=2)], IMAGE),
    "Flatten all": ([node("Flatten", axis=-4)], IMAGE),
    "Flatten to the front": ([node("Flatten", axis=4)], IMAGE),
    "Reshape": ([node("Reshape", ints(1, -1))], IMAGE),
    "Reshape with zeros": ([node("Reshape", ints(0, 0, 15, 2))], IMAGE),
    "Reshape without a batch": ([node("Reshape", ints(-1))], IMAGE),
    "Reshape to several": ([node("Reshape", ints(-1, 5))], IMAGE),
    "Transpose": ([node("Transpose", perm=[0, 2, 3, 1])], IMAGE),
    "Transpose all": ([node("Transpose")], IMAGE),
    "Squeeze": ([node("Squeeze")], (1, 1, 1, 5)),
    "Squeeze an axis": ([node("Squeeze", ints(1))], (1, 1, 3, 5)),
    "Squeeze as it was": ([node("Squeeze", axes=[0])], FLAT, 11),
    "Unsqueeze": ([node("Unsqueeze", ints(0, 3))], (3, 2)),
    "Unsqueeze as it was": ([node("Unsqueeze", axes=[1])], FLAT, 11),
    "Slice": ([node("Slice", ints(1, 0), ints(4, 1000), ints(2, -1), ints(1, 2))], IMAGE),
    "Slice backwards": ([node("Slice", ints(-1), ints(-1000), ints(1), ints(-1))], IMAGE),
    "Slice as it was": ([node("Slice", starts=[1], ends=[3], axes=[1])], FLAT, 9),
    "Slice of the batch": ([node("Slice", ints(0), ints(1), ints(0))], FLAT),
    "Gather": ([node("Gather", ints(4, 0, -1, 0), axis=1)], FLAT),
    "Gather one": ([node("Gather", np.array(2), axis=2)], IMAGE),
    "Gather a matrix": ([node("Gather", np.array([[0, 1], [1, 1]]), axis=1)], IMAGE),
    "Gather the batch": ([node("Gather", np.array(0), axis=0)], IMAGE),
    "Split": ([node("Split", ints(2, 5), axis=1, outputs=["other", "y"])], FLAT),
    "Split evenly": ([node("Split", axis=1, outputs=["y", "other"])], IMAGE),
    "Split as it was": ([node("Split", axis=1, split=[3, 4], outputs=["y", "other"])], FLAT, 11),
    "Pad": ([node("Pad", ints(0, 0, 1, 2, 0, 0, 0, 1), scalar(0.3))], IMAGE),
    "Pad channels": ([node("Pad", ints(0, 1, 0, 0, 0, 2, 0, 0))], IMAGE),
    "Pad that cuts": ([node("Pad", ints(0, 0, -1, 0, 0, 0, 2, -2))], IMAGE),
    "Pad by reflection": ([node("Pad", ints(0, 0, 1, 2, 0, 0, 0, 1), mode="reflect")], IMAGE),
    "Pad by the other side": ([node("Pad", ints(0, 0, 1, 2, 0, 0, 0, 1), mode="wrap")], IMAGE, 19),
    "Pad by the edge": ([node("Pad", ints(0, 0, 1, 2), mode="edge")], (3, 4)),
    "Pad as it was": ([node("Pad", pads=[0, 1, 0, 2], value=0.0)], FLAT, 9),
    "Pad some axes": ([node("Pad", ints(1, 2), scalar(0), ints(3))], IMAGE, 18),
    "Pad by nothing": ([node("Pad", ints(0, 0, 0, 0))], FLAT),
    "Expand": ([node("Expand", ints(1, 3, 2, 6, 5))], IMAGE),
    "Expand the front": ([node("Expand", ints(3, 7))], FLAT),
    "Identity": ([node("Identity")], FLAT),
    "Dropout": ([node("Dropout", scalar(0.5), FALSE)], FLAT),
    "Dropout as it was": ([node("Dropout", ratio=0.5)], FLAT, 7),
    "Cast": ([node("Cast", to=1)], FLAT),
}


def add_cases() -> None:
    """Those whose nodes read several layers."""
    from onnx import helper

    two = [node("Relu", outputs=["a"]), node("Neg", outputs=["b"])]
    columns = [node("Relu", outputs=["a"]), node("Reshape", ints(1, -1), reads="a", outputs=["b"])]
    make = helper.make_node
    CASES["Add layers"] = ([*two, make("Add", ["a", "b"], ["y"])], IMAGE)
    CASES["Sub layers"] = ([*two, make("Sub", ["a", "b"], ["y"])], IMAGE)
    CASES["Sum of three layers"] = ([*two, make("Sum", ["a", "b", "x"], ["y"])], FLAT)
    CASES["Add layers that repeat"] = (
        [node("ReduceMean", axes=[2, 3], outputs=["a"]), make("Add", ["a", "x"], ["y"])],
        IMAGE,
    )
    CASES["Add a column and a row"] = ([*columns, make("Add", ["x", "b"], ["y"])], (4, 1))
    CASES["Concat"] = ([*two, make("Concat", ["a", "b", "a"], ["y"], axis=1)], IMAGE)
    CASES["Concat at the end"] = ([*two, make("Concat", ["a", "b"], ["y"], axis=-1)], IMAGE)
    CASES["Concat at the front"] = ([*two, make("Concat", ["a", "b"], ["y"], axis=0)], FLAT)
    constant = {"one": numbers(7)}
    CASES["Sub from a constant"] = ([(make("Sub", ["one", "x"], ["y"]), constant)], FLAT)
    matrix = {"w": numbers(3, 7)}
    CASES["MatMul from the left"] = ([(make("MatMul", ["w", "x"], ["y"]), matrix)], (7, 1))
    CASES["MatMul from the left of no batch"] = ([(make("MatMul", ["w", "x"], ["y"]), matrix)], (7,))
    CASES["MatMul from the left, columns"] = ([(make("MatMul", ["w", "x"], ["y"]), matrix)], (7, 4))
    CASES["MatMul from the left, a row"] = ([(make("MatMul", ["w", "x"], ["y"]), {"w": numbers(3, 1)})], (1, 4))
    CASES["MatMul a vector from the left"] = ([(make("MatMul", ["w", "x"], ["y"]), {"w": numbers(7)})], (7, 4))
    fold = [
        node("Shape", outputs=["shape"]),
        node("Gather", np.array(0), reads="shape", outputs=["n"]),
        node("Unsqueeze", ints(0), reads="n", outputs=["batch"]),
        (make("Concat", ["batch", "minus"], ["target"], axis=0), {"minus": ints(-1)}),
        make("Reshape", ["x", "target"], ["y"]),
    ]
    CASES["Shape, as torch flattens"] = (fold, ("N", 2, 6, 5))
    zeros = [
        node("Shape", outputs=["shape"], end=2),
        make("ConstantOfShape", ["shape"], ["zeros"]),
        node("Reshape", ints(1, 2, 1, 1), reads="zeros", outputs=["offset"]),
        make("Add", ["x", "offset"], ["y"]),
    ]
    CASES["Shape of zeros"] = (zeros, IMAGE)
    value = helper.make_tensor("c", 1, [7], numbers(7))
    CASES["Constant"] = ([make("Constant", [], ["c"], value=value), make("Mul", ["x", "c"], ["y"])], FLAT)
    CASES["Transpose of weights"] = (
        [(make("Transpose", ["w"], ["t"]), matrix), make("MatMul", ["x", "t"], ["y"])],
        FLAT,
    )


add_cases()


def test_every_operator_of_the_table_has_a_case():
    tested = {(item[0] if isinstance(item, tuple) else item).op_type for nodes, *_ in CASES.values() for item in nodes}
    assert set(OPERATORS) - tested == set()


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_what_onnxruntime_computes(name: str, tmp_path: Path):
    nodes, shape, *version = CASES[name]
    path = save(model(nodes, shape, opset=version[0] if version else 17), tmp_path)
    network = from_onnx(path)
    x = torch.randn((4, *network.input_shape))
    expected = by_onnxruntime(path, x, network.onnx_shape)
    found = network(x)
    assert found.shape == (4, network.num_outputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    graph = trace(network, network.input_shape)
    torch.testing.assert_close(graph.forward(parameters(network), x), expected, rtol=1e-4, atol=1e-5)
