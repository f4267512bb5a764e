"""Linear layers by either of PyTorch's two libraries: the same numbers, and gradients where they are trained."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from radllm_backend.language import linear
from radllm_backend.language.linear import Linear, quicken, quicken_adapters

SHAPES = [(576, 1536), (1536, 576), (576, 192), (48, 16)]
needs_onednn = pytest.mark.skipif(not linear._has_onednn(), reason="this processor or PyTorch has no other library")


def layer(shape: tuple[int, int]) -> Linear:
    torch.manual_seed(0)
    return Linear(*shape, bias=False).requires_grad_(False)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_computes_what_pytorch_computes(shape):
    own = layer(shape)
    rows = torch.randn(2, 70, shape[0])
    assert torch.allclose(own(rows), functional.linear(rows, own.weight), atol=1e-5)


@needs_onednn
@given(st.sampled_from(SHAPES), st.integers(0, 150), st.integers(2, 150))
@settings(deadline=None, max_examples=60)
def test_a_row_has_the_same_bits_whatever_rows_are_beside_it(shape, first, count):
    own = layer(shape)
    rows = torch.sin(torch.arange(300.0 * shape[0])).reshape(300, shape[0])
    assert torch.equal(own(rows)[first : first + count], own(rows[first : first + count]))


@needs_onednn
def test_the_other_library_is_really_another_one(monkeypatch):
    own, rows = layer((576, 1536)), torch.randn(70, 576)
    found = own(rows)
    monkeypatch.setattr(linear, "_has_onednn", lambda: False)
    assert torch.equal(own(rows), functional.linear(rows, own.weight))
    assert not torch.equal(found, own(rows))


def test_pytorch_s_own_is_taken_where_the_other_one_fails(monkeypatch):
    def fails(rows, weight):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(linear, "_by_onednn", fails)
    assert not linear._has_onednn.__wrapped__()
    monkeypatch.setattr(linear, "_by_onednn", lambda rows, weight: functional.linear(rows, weight) + 1)
    assert not linear._has_onednn.__wrapped__()


def test_where_it_is_trained_gradients_arrive_and_are_pytorch_s():
    own, theirs = Linear(48, 16, bias=False), nn.Linear(48, 16, bias=False)
    theirs.load_state_dict(own.state_dict())
    rows = torch.randn(20, 48)
    for one in (own, theirs):
        one(rows).square().sum().backward()
    assert torch.equal(own.weight.grad, theirs.weight.grad)


def test_through_a_frozen_layer_gradients_are_pytorch_s():
    own = layer((48, 16))
    rows = torch.randn(3, 20, 48, requires_grad=True)
    shares = torch.randn(3, 20, 16)
    (found,) = torch.autograd.grad((own(rows) * shares).sum(), rows)
    assert torch.allclose(found, shares @ own.weight, atol=1e-5)


@pytest.mark.parametrize("below", [True, False])
def test_an_adapter_is_trained_as_peft_trains_it(below):
    """The same layer as it is and quickened: what it says, and the gradients of both matrices and of its rows."""
    peft = pytest.importorskip("peft")
    model = nn.ModuleDict({"proj": layer((48, 16))})
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["proj"])).base_model.model
    proj = adapted["proj"]
    nn.init.normal_(proj.lora_B["default"].weight)
    rows = torch.randn(2, 20, 48, requires_grad=below)
    shares = torch.randn(2, 20, 16)

    def results():
        wanted = [proj.lora_A["default"].weight, proj.lora_B["default"].weight, *([rows] if below else [])]
        said = proj(rows)
        return [said.detach(), *torch.autograd.grad((said * shares).sum(), wanted)]

    expected = results()
    quicken_adapters(adapted)
    assert type(proj).__name__ == "AdaptedLinear"
    for own, theirs in zip(results(), expected, strict=True):
        assert torch.allclose(own, theirs, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(proj(rows), proj.base_layer(rows) + proj.lora_B["default"](proj.lora_A["default"](rows)) * 2)


def test_under_autocast_it_computes_in_bf16():
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert layer((48, 16))(torch.randn(20, 48)).dtype is torch.bfloat16


def test_only_plain_layers_without_a_bias_are_quickened():
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), Special(4, 4, bias=False))
    quicken(model)
    assert [type(each) for each in model] == [Linear, nn.Linear, Special]
