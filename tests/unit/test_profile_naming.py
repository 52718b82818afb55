"""Operators lead back to modules: XNNPACK's by their order, ONNX Runtime's by the names of its nodes and values."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.export.operators import NodeEntry, OnnxOperators, Operators, PteOperators, TensorInfo
from finet_deploy.profile.model import naming_notes
from finet_deploy.profile.naming import Named, align, name_operators
from finet_deploy.profile.timeline import Operator

# What XNNPACK makes of a node; nothing: fused into the one before.
BECOMES = {
    "XNNConv2d": ["Convolution (NHWC, F32) IGEMM"],
    "XNNDepthwiseConv2d": ["Convolution (NHWC, F32) DWConv"],
    "XNNFullyConnected": ["Fully Connected (NC, F32) GEMM"],
    "XNNAdd": ["Add (ND)"],
    "XNNMultiply": ["Multiply (ND)"],
    "XNNSigmoid": ["Sigmoid (NC)"],
    "XNNHardswish": ["HardSwish (NC)"],
    "XNNStaticTranspose": ["Transpose (ND, X32)"],
    "XNNMaxPooling2d": ["Max Pooling (NHWC, F32)"],
    "XNNGlobalAvgPooling2d": ["Mean (ND) Reduce2"],
    "XNNConcatenate2": ["Copy (NC, X32)"],
    "XNNStaticReshape": ["Static Reshape (NC)"],
    "XNNClamp": [],
}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(sorted(BECOMES)), min_size=1, max_size=25))
def test_each_operator_is_given_the_node_that_it_came_from(nodes):
    nodes = ["XNNConv2d", *nodes]
    operators = [(name, n) for n, node in enumerate(nodes) for name in BECOMES[node]]
    assert align(nodes, [name for name, _ in operators]) == [n for _, n in operators]


def test_operators_of_another_network_are_given_no_node():
    assert align(["XNNConv2d", "XNNAdd"], ["Sigmoid (NC)"]) is None
    assert align(["XNNConv2d"], ["Convolution (NHWC, F32) IGEMM", "Add (ND)"]) is None


def tensor(name: str, *shape: int, constant: bool = False, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name, shape, dtype, constant)


def node(op: str, module: str, inputs=(), outputs=(), macs: int = 0, reason: str | None = None) -> NodeEntry:
    return NodeEntry(op=op, module=module, inputs=inputs, outputs=outputs, macs=macs, reason=reason)


X, W = tensor("x", 1, 8, 4, 4), tensor("w", 16, 8, 1, 1, constant=True)
CONV = node("aten.convolution.default", "stage2.0.conv1", (X, W), (tensor("c", 1, 16, 4, 4),), macs=2048)
RELU = node("aten.relu.default", "stage2.0.relu", (tensor("c", 1, 16, 4, 4),), (tensor("r", 1, 16, 4, 4),))
VIEW = node("aten.view.default", "", (), (), reason="no rule")


def test_a_fused_activation_belongs_to_its_convolution_and_a_kernel_outside_says_why():
    known = Operators(
        pte=PteOperators(
            nodes={"1": CONV, "2": RELU, "3": VIEW},
            delegates=((("XNNConv2d", 1), ("XNNClamp", 2)),),
            kernels={"1": 3},
        )
    )
    operators = [
        Operator("", "set-up", "runtime", 0, {}),
        Operator("Fully Connected (NC, F32) GEMM #1", "Fully Connected (NC, F32) GEMM", "delegate", 0, {}),
        Operator("view_copy.out", "view_copy.out", "kernel", 1, {}),
    ]
    nothing, conv, view = name_operators(operators, known, "executorch")
    assert nothing.module is None
    assert (conv.module, conv.macs) == ("stage2.0.conv1", 2048)
    assert conv.ops == ("aten.convolution.default", "aten.relu.default")
    assert conv.bytes == 4 * (1 * 8 * 4 * 4 + 16 * 8 + 16 * 4 * 4)
    assert view.reason == "no rule"


def test_rounding_beside_an_operator_in_int8_has_its_handle_but_none_of_its_work():
    """XNNPACK does a sigmoid in int8 by a table, without a name."""
    sigmoid = node("aten.sigmoid.default", "stage2.0.se", (X,), (X,))
    steps = (("XNNConv2d", 1), ("XNNConvert", 1), ("XNNSigmoid", 2), ("XNNConvert", 2))
    known = Operators(pte=PteOperators(nodes={"1": CONV, "2": sigmoid}, delegates=(steps,), kernels={}))
    kinds = ("Fully Connected (NC, QS8, QC8W) GEMM", "Convert (NC)", "Invalid Unary Op")
    operators = [Operator(f"{kind} #1", kind, "delegate", 0, {}) for kind in kinds]
    named = name_operators(operators, known, "executorch")
    assert [item.module for item in named] == ["stage2.0.conv1", "stage2.0.conv1", "stage2.0.se"]
    assert [item.macs for item in named] == [2048, 0, 0]


def test_a_profile_without_names_says_whether_the_bundle_or_the_runtime_is_why():
    nameless, known = [Named(), Named()], Operators(pte=PteOperators(nodes={}, delegates=(), kernels={}))
    for operators, fmt in ((None, "pte"), (known, "onnx")):
        assert "export it again" in naming_notes(nameless, 10, operators, fmt)[0]
    assert "other operators" in naming_notes(nameless, 10, known, "pte")[0]
    assert naming_notes([Named(module="a", macs=10)], 10, known, "pte") == []
    assert "12 multiply-adds, the network 10" in naming_notes([Named("a", macs=12)], 10, known, "pte")[0]
    assert "4 of 10" in naming_notes([Named(module="a", macs=4)], 10, known, "pte")[0]


def test_another_number_of_delegates_than_the_bundle_says_names_nothing():
    known = Operators(pte=PteOperators(nodes={"1": CONV}, delegates=(), kernels={}))
    operators = [Operator("Fully Connected #1", "Fully Connected", "delegate", 0, {})]
    assert name_operators(operators, known, "executorch")[0].module is None


def onnx_name(name: str, op: str, details=None):
    nodes = {
        "node_Conv_1": node("Conv", "stage2.0.conv1", (X, W), (tensor("conv2d_1", 1, 16, 4, 4),), macs=2048),
        "node_relu_1": node(
            "Relu", "stage2.0.relu", (tensor("conv2d_1", 1, 16, 4, 4),), (tensor("relu_1", 1, 16, 4, 4),)
        ),
    }
    item = Operator(name, op, "kernel", -1, details or {})
    return name_operators([item], Operators(onnx=OnnxOperators(nodes=nodes)), "onnxruntime")[0]


def test_fused_and_relaid_nodes_of_onnxruntime_are_found_by_node_and_by_value():
    for name, op in (
        ("fused node_Conv_1", "FusedConv"),
        ("conv2d_1_nchwc", "Conv"),
        ("relu_1_nchwc", "Conv"),
    ):
        found = onnx_name(name, op)
        assert (found.module, found.macs) == ("stage2.0.conv1", 2048), name
    assert onnx_name("node_relu_1", "Relu").module == "stage2.0.relu"
    assert onnx_name("ReorderInput", "ReorderInput").module is None


def test_weights_that_the_runtime_packed_are_counted_as_moved():
    shapes = {
        "input_type_shape": [{"float": [1, 8, 4, 4]}],
        "output_type_shape": [{"float": [1, 16, 4, 4]}],
        "parameter_size": "0",
    }
    activations = 4 * (8 * 16 + 16 * 16)
    assert onnx_name("fused node_Conv_1", "FusedConv", shapes).bytes == activations + 4 * 16 * 8
    with_weights = {**shapes, "input_type_shape": [{"float": [1, 8, 4, 4]}, {"float": [16, 8, 1, 1]}]}
    with_weights["parameter_size"] = str(4 * 16 * 8)
    assert onnx_name("fused node_Conv_1", "FusedConv", with_weights).bytes == activations + 4 * 16 * 8
