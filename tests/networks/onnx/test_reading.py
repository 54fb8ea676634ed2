"""ONNX files: layouts, what becomes of whole networks, and what is refused, in one line that names the node."""

import copy
import gzip
import pickle
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import by_onnxruntime, ints, model, node, numbers, save
from torch import nn

import certtrain
from certtrain.errors import CerttrainError, ConfigError, UnsupportedOperation
from certtrain.networks import from_onnx, trace
from certtrain.networks.onnx import agreement

# As exporters write a small classifier: matrices and sums of their own, or Gemm behind Flatten.
MATMUL = [
    node("Reshape", ints(1, 12), outputs=["flat"]),
    node("MatMul", numbers(12, 5), reads="flat", outputs=["a"]),
    node("Add", numbers(5), reads="a", outputs=["b"]),
    node("Relu", reads="b", outputs=["c"]),
    node("Gemm", numbers(3, 5), numbers(3), reads="c", transB=1),
]


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [
        ((1, 3, 2, 2), (3, 2, 2)),
        (("N", 3, 2, 2), (3, 2, 2)),
        ((None, 12), (12,)),
        ((1, 12), (12,)),
        ((12,), (12,)),
        ((3, 2, 2), (3, 2, 2)),
        ((1, 1, 1, 12), (1, 1, 12)),
        ((12, 1), (12, 1)),
        ((1, 12, 1), (12, 1)),
    ],
)
def test_every_layout_of_the_input(shape, input_shape, tmp_path):
    path = save(model(MATMUL, shape), tmp_path)
    network = from_onnx(path)
    assert network.input_shape == input_shape
    x = torch.randn(5, *input_shape)
    torch.testing.assert_close(network(x), by_onnxruntime(path, x, network.onnx_shape), rtol=1e-5, atol=1e-5)
    assert [type(op).__name__ for op in trace(network, input_shape).ops if type(op).__name__ != "Reshape"] == [
        "Input",
        "Linear",
        "Activation",
        "Linear",
    ]


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21, 23])
def test_versions_of_the_operators(opset, tmp_path):
    path = save(model(MATMUL, (1, 12), opset=opset), tmp_path)
    x = torch.randn(5, 12)
    torch.testing.assert_close(from_onnx(path)(x), by_onnxruntime(path, x, (1, 12)), rtol=1e-5, atol=1e-5)


def test_layers_are_torchs_with_the_names_of_the_nodes(tmp_path):
    network = from_onnx(save(model(MATMUL, (1, 12)), tmp_path))
    assert isinstance(network.body.the_MatMul, nn.Linear)
    assert network.body.the_MatMul.bias.tolist() == numbers(5).tolist()
    assert not network.training
    assert sorted(name for name, _ in network.named_parameters()) == [
        "body.the_Gemm.bias",
        "body.the_Gemm.weight",
        "body.the_MatMul.bias",
        "body.the_MatMul.weight",
    ]


def test_a_sum_that_others_read_too_is_no_bias(tmp_path):
    nodes = [
        node("MatMul", numbers(4, 4), outputs=["a"]),
        node("Add", numbers(4), reads="a", outputs=["b"]),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    network = from_onnx(save(model(nodes, (1, 4)), tmp_path))
    torch.testing.assert_close(network(torch.randn(2, 4)), -torch.from_numpy(numbers(4)).expand(2, 4))


def test_a_residual_network_is_bounded_and_certified(tmp_path):
    nodes = [
        node("Conv", numbers(4, 2, 3, 3), numbers(4), pads=[1, 1, 1, 1], outputs=["a"]),
        node("Relu", reads="a", outputs=["b"]),
        (helper.make_node("Conv", ["b", "w"], ["c"], pads=[1, 1, 1, 1]), {"w": numbers(4, 4, 3, 3, seed=1)}),
        helper.make_node("Add", ["c", "b"], ["d"]),
        node("GlobalAveragePool", reads="d", outputs=["e"]),
        node("Flatten", reads="e", outputs=["f"]),
        node("Gemm", numbers(4, 3), reads="f"),
    ]
    network = from_onnx(save(model(nodes, (1, 2, 5, 5)), tmp_path))
    x = torch.rand(2, 2, 5, 5)
    bounds = certtrain.bound(network, certtrain.Box.linf(x, 0.01), relaxation="crown_ibp")
    assert ((bounds.lower <= network(x)) & (network(x) <= bounds.upper)).all()
    labels = network(x).argmax(1)
    assert {v.status for v in certtrain.certify(network, x, labels, 0.0)} == {"verified"}


def test_double_precision(tmp_path):
    nodes = [
        node("Gemm", numbers(7, 4).astype(np.float64)),
    ]
    network = from_onnx(save(model(nodes, (1, 7), kind=TensorProto.DOUBLE), tmp_path))
    assert next(network.parameters()).dtype == torch.float64
    assert network(torch.zeros(1, 7, dtype=torch.float64)).dtype == torch.float64
    # A convolution in float64 is none of onnxruntime's: it is compared in float32.
    nodes = [node("Conv", numbers(3, 2, 3, 3).astype(np.float64))]
    assert from_onnx(save(model(nodes, (1, 2, 4, 4), kind=TensorProto.DOUBLE), tmp_path)).num_outputs == 12


def test_a_network_can_be_copied_pickled_and_converted(tmp_path):
    network = from_onnx(save(model(MATMUL, (1, 12)), tmp_path))
    x = torch.randn(2, 12)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x), network(x))
        assert other.input_shape == (12,)
    torch.testing.assert_close(copy.deepcopy(network).double()(x.double()).float(), network(x))


def test_nodes_without_effect_need_not_be_known(tmp_path):
    made = model([helper.make_node("Erf", ["x"], ["unused"]), node("Relu")], (1, 3))
    assert torch.equal(from_onnx(save(made, tmp_path))(torch.tensor([[-1.0, 0, 2]])), torch.tensor([[0.0, 0, 2]]))


def test_inputs_that_are_initializers_are_weights(tmp_path):
    made = model([node("Gemm", numbers(3, 2))], (1, 3))
    made.graph.input.append(helper.make_tensor_value_info("Gemm_y_0", TensorProto.FLOAT, [3, 2]))
    assert from_onnx(save(made, tmp_path)).input_shape == (3,)


def test_compressed_files_and_tensors_in_files_of_their_own(tmp_path):
    made = model(MATMUL, (1, 12))
    expected = from_onnx(save(made, tmp_path))(torch.ones(1, 12))
    (tmp_path / "a.onnx.gz").write_bytes(gzip.compress(made.SerializeToString()))
    assert torch.equal(from_onnx(tmp_path / "a.onnx.gz")(torch.ones(1, 12)), expected)
    onnx.save(made, tmp_path / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    assert torch.equal(from_onnx(str(tmp_path / "b.onnx"))(torch.ones(1, 12)), expected)
    (tmp_path / "b.data").unlink()
    with pytest.raises(ConfigError, match=r"b\.onnx"):
        from_onnx(tmp_path / "b.onnx")


@pytest.mark.parametrize(
    ("nodes", "shape", "message"),
    [
        ([node("Erf")], (1, 3), r"node 'the_Erf' \(Erf\) is not supported; supported are Add, "),
        ([node("Softmax")], (1, 3), r"node 'the_Softmax' \(Softmax\) is not supported"),
        ([helper.make_node("Erf", ["x"], ["y"])], (1, 3), r"node 'Erf_0' \(Erf\)"),
        ([helper.make_node("Relu", ["x"], ["y"], domain="mine")], (1, 3), r"\(mine.Relu\) is not supported"),
        ([helper.make_node("Mul", ["x", "x"], ["y"], "square")], (1, 3), r"'square' \(Mul\): the product of two"),
        ([helper.make_node("MatMul", ["x", "x"], ["y"])], (3, 3), r"\(MatMul\): the product of two"),
        ([helper.make_node("Div", ["x", "x"], ["y"])], (1, 3), "divided by a constant"),
        ([node("Div", numbers(3) * 0)], (1, 3), "divides by zero"),
        ([node("Gemm", numbers(4, 2))], (1, 3), r"'the_Gemm' \(Gemm\): its matrix takes 4 numbers, its input has 3"),
        ([node("Gemm", numbers(3, 2))], (2, 3), r"its input must be \[1, features\], got \[2, 3\]"),
        ([node("Gemm", numbers(3, 2) * np.nan)], (1, 3), r"'the_Gemm' \(Gemm\): its weights must be finite"),
        ([node("Add", numbers(3) * np.inf)], (1, 3), "must be finite"),
        ([node("Conv", numbers(3, 2, 3, 3))], (2, 4, 4), r"\[1, channels, length\] or .*got \[2, 4, 4\]"),
        ([node("Conv", numbers(3, 2, 1, 3, 3))], (1, 2, 1, 4, 4), "its input must be"),
        ([node("Conv", numbers(3, 5, 3, 3))], (1, 2, 4, 4), r"\(Conv\) cannot be carried out"),
        ([node("BatchNormalization", *[numbers(3)] * 3, -abs(numbers(3)))], (1, 3), "variances must be positive"),
        ([node("MaxPool", kernel_shape=[2, 2], outputs=["z", "y"])], (1, 1, 4, 4), "reads 'y', which nothing before"),
        ([node("AveragePool", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1)], (1, 1, 6, 6), "ceil_mode"),
        ([node("AveragePool", kernel_shape=[2, 2], pads=[1, 0, 0, 0])], (1, 1, 6, 6), "count_include_pad=1 only"),
        ([node("Cast", to=7)], (1, 3), "between float32 and float64"),
        ([node("Dropout", np.float32(0.5), np.array(True))], (1, 3), "dropout must be off"),
        ([node("Clip", np.float32(1), np.float32(0))], (1, 3), "its range must not be empty, got 1 to 0"),
        ([node("Reshape", ints(2, 5))], (1, 3), r"\[1, 3\] cannot be given the shape \[2, 5\]"),
        ([node("Slice", ints(2), ints(1), ints(1))], (1, 3), "nothing would be left"),
        ([node("Gather", ints(7), axis=1)], (1, 3), "there is no element 7"),
        ([node("Transpose", perm=[0, 5])], (1, 3), "there is no axis 5 among 2"),
        ([node("Concat", numbers(1, 3), axis=1)], (1, 3), "no constants"),
        ([node("Relu", alpha=0.5)], (1, 3), r"\(Relu\): attribute alpha=0.5 is not supported"),
        ([node("Relu", numbers(3))], (1, 3), r"\(Relu\): its input 1 is not supported"),
        ([node("Relu", reads="nothing")], (1, 3), "reads 'nothing', which nothing before it computes"),
        ([helper.make_node("RandomNormal", [], ["r"], shape=[3]), helper.make_node("Add", ["x", "r"], ["y"])], (1, 3),
         "random numbers"),
        ([(helper.make_node("Neg", ["c"], ["y"]), {"c": numbers(3)})], (1, 3), "output 'y' is a constant"),
        ([node("Relu")], (1, "width"), r"input 'x' must have a shape of known lengths .*got \[1, 0\]"),
        ([node("Relu")], (), "known lengths"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_node_and_operator(nodes, shape, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # which would refuse some of them itself
    path = save(model(nodes, shape), tmp_path)
    with pytest.raises(CerttrainError, match=message) as caught:
        from_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: graph.input.append(helper.make_tensor_value_info("z", 1, [1, 3])), "the network has 2: x, z"),
        (lambda graph: graph.input.pop(), "one input is supported, the network has 0"),
        (lambda graph: graph.output.append(helper.make_tensor_value_info("z", 1, [1, 3])), "the network has 2: y"),
        (lambda graph: setattr(graph.output[0], "name", "z"), "the network's output reads 'z'"),
        (lambda graph: setattr(graph.input[0].type.tensor_type, "elem_type", 10), "must be float32 or float64"),
        (lambda graph: setattr(graph.initializer[0], "raw_data", b"123"), "the tensor 'Gemm_y_0' cannot be read"),
    ],
)
def test_graphs_of_another_form_are_refused(change, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    made = model([node("Gemm", numbers(3, 2))], (1, 3))
    change(made.graph)
    with pytest.raises(CerttrainError, match=message):
        from_onnx(save(made, tmp_path))


def test_a_file_that_onnxruntime_refuses_is_refused(tmp_path):
    made = model([node("Relu"), node("Relu", reads="y", outputs=["x"])], (1, 3))
    with pytest.raises(ConfigError, match="onnxruntime refuses it"):
        from_onnx(save(made, tmp_path))


def test_another_function_than_onnxruntimes_is_refused(tmp_path, monkeypatch):
    path = save(model(MATMUL, (1, 12)), tmp_path)
    original = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *args: [1.01 * original(*args)[0]])
    with pytest.raises(UnsupportedOperation, match="computes something else than onnxruntime .outputs differ by"):
        from_onnx(path)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *args: [original(*args)[0][:, :2]])
    with pytest.raises(UnsupportedOperation, match="has 3 outputs, by onnxruntime 2"):
        from_onnx(path)
    monkeypatch.setattr(agreement, "check_agreement", None)  # already imported by name: nothing is skipped
    with pytest.raises(UnsupportedOperation):
        from_onnx(path)


def test_damaged_files_are_one_line(tmp_path):
    whole = save(model(MATMUL, (1, 12)), tmp_path).read_bytes()
    path = tmp_path / "damaged.onnx"
    for content in [b"", b"no network", b"\x00" * 50, *(whole[:n] for n in range(1, len(whole), 7))]:
        path.write_bytes(content)
        with pytest.raises(CerttrainError, match=r"damaged\.onnx: ") as caught:
            from_onnx(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"nowhere\.onnx: cannot be read: No such file"):
        from_onnx(tmp_path / "nowhere.onnx")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        from_onnx(tmp_path)


def test_files_with_other_bytes_in_them_are_one_line_or_what_onnxruntime_computes(tmp_path):
    whole, random = save(model(MATMUL, (1, 12)), tmp_path).read_bytes(), Random(0)
    path, refused = tmp_path / "damaged.onnx", []
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            content[random.randrange(len(content))] = random.randrange(256)
        path.write_bytes(content)
        try:
            from_onnx(path)
        except CerttrainError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all(map(str.isprintable, refused))


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r'pip install "certtrain\[onnx\]"'):
        from_onnx(Path("any.onnx"))


def test_onnx_is_imported_when_it_is_used():
    script = "import sys, certtrain; certtrain.networks.from_onnx; print({'onnx', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
