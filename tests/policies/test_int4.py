"""Four bits: our arithmetic is compressed-tensors' own, bit for bit, and gradients go through."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given
from hypothesis import strategies as st

from palestra.policies.compressed import packed
from palestra.policies.int4 import fake_quantise, pack, quantise, scales, unpack
from palestra.rl.errors import UserError

ARGS = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)
FLOATS = [torch.float32, torch.bfloat16, torch.float16]


@st.composite
def weights(draw: st.DrawFn) -> torch.Tensor:
    """Matrices whose groups are of any size that a type has: zeros, subnormals, ties, outliers."""
    dtype = draw(st.sampled_from(FLOATS))
    rows, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    low, high = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max / 16
    sizes = st.sampled_from([0.0, low / 64, low, 1e-3, 1.0, high])
    size = torch.tensor([draw(sizes) for _ in range(rows * groups)]).view(rows, groups, 1)
    steps = torch.randint(-15, 16, (rows, groups, 32), generator=random) / 15
    noise = torch.rand(rows, groups, 32, generator=random) * 2 - 1
    values = steps if draw(st.booleans()) else noise
    return (values.double() * size).to(dtype).flatten(1)


@given(weights())
def test_compressed_tensors_packs_and_unpacks_the_same_bits(weight: torch.Tensor) -> None:
    groups = weight.unflatten(-1, (-1, 32))
    scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), ARGS)
    quantised = quantize(weight, scale, None, ARGS, dtype=torch.int8)
    words = pack_to_int32(quantised, 4)

    assert same(scales(weight), scale)
    assert same(quantise(weight, scale).to(torch.int8), quantised)
    assert same(pack(quantised), words)
    assert same(unpack(words), unpack_from_int32(words, 4, weight.shape))
    theirs = dequantize(unpack_from_int32(words, 4, weight.shape), scale)
    assert same(fake_quantise(weight), theirs)
    assert fake_quantise(weight).isfinite().all()


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@given(weights())
def test_the_gradient_goes_straight_through(weight: torch.Tensor) -> None:
    weight.requires_grad_()
    upstream = torch.linspace(-1, 1, weight.numel(), dtype=weight.dtype).view_as(weight)
    (fake_quantise(weight) * upstream).sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, upstream)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.finfo(torch.float32).min])
def test_what_does_not_come_back_as_a_number_is_not_packed(value: float) -> None:
    weight = torch.ones(2, 64)
    weight[1, 40] = value
    with pytest.raises(UserError, match=r"layer\.weight: holds NaN, infinity or numbers"):
        packed("layer.weight", weight)
