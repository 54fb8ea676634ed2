"""The operators of ONNX that are understood: a table of names and functions. A new one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.operators.activations import clip, hard_sigmoid, leaky_relu, relu, sigmoid, tanh
from certtrain.networks.onnx.operators.arithmetic import add, divide, multiply, negate, subtract
from certtrain.networks.onnx.operators.convolutions import (
    batch_normalization,
    convolution,
    transposed_convolution,
)
from certtrain.networks.onnx.operators.matrices import gemm, matmul
from certtrain.networks.onnx.operators.moves import concat, expand, gather, pad, slice_, split, transpose
from certtrain.networks.onnx.operators.pooling import (
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
    reduce_mean,
    reduce_sum,
)
from certtrain.networks.onnx.operators.shapes import (
    cast,
    dropout,
    flatten,
    identity,
    reshape,
    shape,
    squeeze,
    unsqueeze,
)
from certtrain.networks.onnx.values import Value

Result = Value | np.ndarray | list[Value]
Rule = Callable[[Node], Result]

OPERATORS: Mapping[str, Rule] = {
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Clip": clip,
    "Concat": concat,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Div": divide,
    "Dropout": dropout,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "HardSigmoid": hard_sigmoid,
    "Identity": identity,
    "LeakyRelu": leaky_relu,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": multiply,
    "Neg": negate,
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
    "Relu": relu,
    "Reshape": reshape,
    "Shape": shape,
    "Sigmoid": sigmoid,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Sub": subtract,
    "Sum": add,
    "Tanh": tanh,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
