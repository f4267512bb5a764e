"""Linear layers by either of PyTorch's two libraries: the same numbers, and gradients where they are trained.

oneDNN is chosen on processors with AVX-512 only, but its operator computes on all of them: tests force it.
"""

from __future__ import annotations

import contextlib
import logging
import sys

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from radllm_backend.language import linear
from radllm_backend.language.linear import OneDnnLinear, quicken, quicken_adapters
from radllm_backend.learning.provenance import hardware

SHAPES = [(576, 1536), (1536, 576), (576, 192), (48, 16)]
needs_onednn = pytest.mark.skipif(not linear._has_onednn(), reason="this processor or PyTorch has no other library")


@contextlib.contextmanager
def forcing():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN at all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_has_onednn", lambda: True)
        linear._trains_as_peft.cache_clear()
        yield
    linear._trains_as_peft.cache_clear()


@pytest.fixture(params=["chosen", "forced"])
def either(request):
    """As this processor has it, and by oneDNN."""
    with forcing() if request.param == "forced" else contextlib.nullcontext():
        yield


@pytest.fixture
def forced():
    with forcing():
        yield


def layer(shape: tuple[int, int]) -> OneDnnLinear:
    torch.manual_seed(0)
    return OneDnnLinear(*shape, bias=False).requires_grad_(False)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_computes_what_pytorch_computes(shape, either):
    own = layer(shape)
    rows = torch.randn(2, 70, shape[0])
    assert torch.allclose(own(rows), functional.linear(rows, own.weight), atol=1e-5)


@given(st.sampled_from(SHAPES), st.integers(0, 150), st.integers(2, 150))
@settings(deadline=None, max_examples=60)
def test_a_row_has_the_same_bits_whatever_rows_are_beside_it(shape, first, count):
    own = layer(shape)
    rows = torch.sin(torch.arange(300.0 * shape[0])).reshape(300, shape[0])
    with forcing():
        assert torch.equal(own(rows)[first : first + count], own(rows[first : first + count]))


@needs_onednn
def test_the_other_library_is_really_another_one(monkeypatch):
    own, rows = layer((576, 1536)), torch.randn(70, 576)
    found = own(rows)
    monkeypatch.setattr(linear, "_has_onednn", lambda: False)
    assert torch.equal(own(rows), functional.linear(rows, own.weight))
    assert not torch.equal(found, own(rows))


def test_pytorch_s_own_is_taken_where_the_other_one_fails(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert linear._has_onednn.__wrapped__() == torch.backends.mkldnn.is_available()

    def fails(rows, weight):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(linear, "_by_onednn", fails)
    assert not linear._has_onednn.__wrapped__()
    monkeypatch.setattr(linear, "_by_onednn", lambda rows, weight: functional.linear(rows, weight) + 1)
    assert not linear._has_onednn.__wrapped__()


def test_where_it_is_trained_gradients_arrive_and_are_pytorch_s(either):
    own, theirs = OneDnnLinear(48, 16, bias=False), nn.Linear(48, 16, bias=False)
    theirs.load_state_dict(own.state_dict())
    rows = torch.randn(20, 48)
    for one in (own, theirs):
        one(rows).square().sum().backward()
    assert torch.equal(own.weight.grad, theirs.weight.grad)


def test_through_a_frozen_layer_gradients_are_pytorch_s(either):
    own = layer((48, 16))
    rows = torch.randn(3, 20, 48, requires_grad=True)
    shares = torch.randn(3, 20, 16)
    (found,) = torch.autograd.grad((own(rows) * shares).sum(), rows)
    assert torch.allclose(found, shares @ own.weight, atol=1e-5)


# --- adapters -------------------------------------------------------------------------------------------------------


def adapter(**options):
    """A frozen layer with one adapter in which nothing is zero, inside a model of peft's: the model and the layer."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["proj"], **options})
    model = peft.get_peft_model(nn.ModuleDict({"proj": layer((48, 16))}), config)
    proj = model.base_model.model["proj"]
    nn.init.normal_(proj.lora_B["default"].weight)
    return model, proj


def learned(proj, rows, shares):
    """What the layer says, and the gradients of all that is trained and of the rows."""
    torch.manual_seed(1)  # for a dropout
    wanted = [one for one in proj.parameters() if one.requires_grad] + [rows] * rows.requires_grad
    said = proj(rows)
    return [said.detach(), *torch.autograd.grad((said * shares).sum(), wanted, allow_unused=True)]


def assert_close(found, expected):
    for own, theirs in zip(found, expected, strict=True):
        assert (own is None) == (theirs is None)
        assert own is None or torch.allclose(own, theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture
def steps(monkeypatch):
    """How often the layer and its adapter were computed in one step."""
    made, apply = [], linear._LoraLinearFunction.apply
    monkeypatch.setattr(linear._LoraLinearFunction, "apply", lambda *given: made.append(1) or apply(*given))
    return made


@pytest.mark.parametrize("below", [True, False])
def test_an_adapter_is_trained_as_peft_trains_it(below, forced, steps):
    """The same layer as it is and quickened: what it says, and the gradients of both matrices and of its rows."""
    model, proj = adapter()
    rows = torch.randn(2, 20, 48, requires_grad=below)
    shares = torch.randn(2, 20, 16)
    expected = learned(proj, rows, shares)
    assert len(expected) == 4 if below else 3
    quicken_adapters(model)
    steps.clear()
    assert type(proj).__name__ == "OneDnnLoraLinear"
    assert_close(learned(proj, rows, shares), expected)
    assert steps == [1]
    with torch.no_grad():
        assert torch.equal(proj(rows), proj.base_layer(rows) + proj.lora_B["default"](proj.lora_A["default"](rows)) * 2)


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_the_gradients_of_an_adapter_are_those_of_its_equation(scale, forced):
    """In fp64, by autograd, of rows W' + scale rows A' B'."""
    torch.manual_seed(0)
    rows, weight, lora_A, lora_B = (torch.randn(*shape) for shape in [(3, 5, 24), (10, 24), (4, 24), (10, 4)])
    shares = torch.randn(3, 5, 10)

    def gradients(function, rows, weight, lora_A, lora_B):
        said = function(rows, weight, lora_A, lora_B)
        trained = (rows, lora_A, lora_B)
        return [said.detach(), *torch.autograd.grad((said * shares.to(said.dtype)).sum(), trained)]

    def equation(rows, weight, lora_A, lora_B):
        return rows @ weight.t() + scale * (rows @ lora_A.t()) @ lora_B.t()

    given = (rows.requires_grad_(), weight, lora_A.requires_grad_(), lora_B.requires_grad_())
    exact = gradients(equation, *(one.detach().double().requires_grad_() for one in given))
    own = gradients(lambda *tensors: linear._LoraLinearFunction.apply(*tensors, scale), *given)
    for found, expected in zip(own, exact, strict=True):
        assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}], ids=["dropout", "DoRA", "bias"]
)
def test_other_adapters_are_left_to_peft(options, forced, steps):
    model, proj = adapter(**options)
    rows, shares = torch.randn(20, 48, requires_grad=True), torch.randn(20, 16)
    expected = learned(proj, rows, shares)
    quicken_adapters(model)
    steps.clear()
    assert type(proj).__name__ == "OneDnnLoraLinear"
    assert_close(learned(proj, rows, shares), expected)
    assert steps == []


def disabled(model, proj):
    proj.enable_adapters(False)


def merged(model, proj):
    proj.merge()


def two(model, proj):
    from peft import LoraConfig

    model.add_adapter("second", LoraConfig(r=2, target_modules=["proj"], init_lora_weights=False))
    model.base_model.set_adapter(["default", "second"])


@pytest.mark.parametrize("change", [disabled, merged, two])
def test_an_adapter_that_is_not_simple_any_more_is_left_to_peft(change, forced, steps):
    found = []
    for quick in (False, True):
        model, proj = adapter()
        if quick:
            quicken_adapters(model)
            assert type(proj).__name__ == "OneDnnLoraLinear"
        torch.manual_seed(2)
        change(model, proj)
        steps.clear()
        rows, shares = torch.sin(torch.arange(960.0)).reshape(20, 48).requires_grad_(), torch.ones(20, 16)
        found.append(learned(proj, rows, shares))
    assert_close(*found)
    assert steps == []


def test_where_onednn_is_not_chosen_adapters_stay_peft_s(monkeypatch):
    monkeypatch.setattr(linear, "_has_onednn", lambda: False)
    model, proj = adapter()
    quicken_adapters(model)
    assert type(proj).__name__ == "Linear"


def without_scale(patch):
    """The mistake that no test noticed: the gradient of B without its scale."""
    backward = linear._LoraLinearFunction.backward

    def wrong(context, gradient):
        below, frozen, lora_A, lora_B, scale = backward(context, gradient)
        return below, frozen, lora_A, lora_B / context.scale, scale

    patch.setattr(linear._LoraLinearFunction, "backward", staticmethod(wrong))


def other_scaling(patch):
    """A peft that scales by something else than what it has in `scaling`."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    forward = LoraLinear.forward
    patch.setattr(LoraLinear, "forward", lambda self, x, *more, **named: forward(self, x, *more, **named) * 1.5)


def renamed(patch):
    """A peft that knows the active adapters by another name."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    def forward(self, x):
        return self.base_layer(x) + 3 * self.lora_B["default"](self.lora_A["default"](x))

    patch.setattr(LoraLinear, "forward", forward)
    patch.setattr(LoraLinear, "active_adapters", property(lambda self: self.gone))


def no_layer(patch):
    """A peft that keeps its layers elsewhere."""
    patch.setitem(sys.modules, "peft.tuners.lora.layer", None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_scale, "other numbers"),
        (other_scaling, "other numbers"),
        (renamed, "AttributeError"),
        (no_layer, "ModuleNotFoundError"),
    ],
)
def test_a_peft_that_computes_otherwise_trains_by_itself_and_the_log_says_so_once(
    change, reason, forced, monkeypatch, caplog
):
    assert "adapters" not in hardware()
    model, proj = adapter()
    linear._onednn_lora_linear.cache_clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        change(patch)
        for _ in range(2):
            quicken_adapters(model)
        assert hardware().endswith(", adapters by peft's own layers")
    linear._onednn_lora_linear.cache_clear()
    assert type(proj).__name__ == "Linear"
    (line,) = caplog.messages
    assert line.startswith("Adapters are trained by the layers of peft ")
    assert reason in line


def test_asking_peft_leaves_the_seed_of_a_training_alone(forced):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert linear._trains_as_peft()
    assert torch.equal(torch.rand(3), expected)


def test_peft_is_asked_once(forced, monkeypatch):
    asked, small = [], linear._small_adapter
    monkeypatch.setattr(linear, "_small_adapter", lambda: asked.append(1) or small())
    for _ in range(3):
        quicken_adapters(adapter()[0])
    assert asked == [1]


# --------------------------------------------------------------------------------------------------------------------


def test_under_autocast_it_computes_in_bf16(either):
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert layer((48, 16))(torch.randn(20, 48)).dtype is torch.bfloat16


def test_only_plain_layers_without_a_bias_are_quickened():
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), Special(4, 4, bias=False))
    quicken(model)
    assert [type(each) for each in model] == [OneDnnLinear, nn.Linear, Special]
