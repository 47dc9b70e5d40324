"""Log-probabilities in chunks are those of the whole."""

from __future__ import annotations

import pytest
import torch

from palestra.policies.logprobs import token_logprobs

TOKENS, WIDTH, VOCABULARY = 13, 6, 17


def problem(seed: int) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(VOCABULARY, WIDTH, generator=rng))
    hidden = torch.randn(TOKENS, WIDTH, generator=rng)
    return head, hidden, torch.randint(VOCABULARY, (TOKENS,), generator=rng)


@pytest.mark.parametrize("chunk", [1, 5, 13, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0, None])
def test_chunks_equal_the_full_softmax(chunk: int, temperature: float | None) -> None:
    head, hidden, target = problem(0)
    mixed = torch.linspace(0.2, 3.0, TOKENS)
    temperatures = mixed if temperature is None else torch.full((TOKENS,), temperature)
    weights = torch.linspace(-1, 1, TOKENS)

    whole = hidden.clone().requires_grad_()
    table = torch.log_softmax(head(whole) / temperatures[:, None], -1)
    expected = table[torch.arange(TOKENS), target]
    (expected * weights).sum().backward()
    head_gradient, head.weight.grad = head.weight.grad, None

    parts = hidden.clone().requires_grad_()
    found, entropy = token_logprobs(head, parts, target, temperatures, chunk=chunk, entropy=True)
    (found * weights).sum().backward()

    torch.testing.assert_close(found, expected)
    exact = -(table.exp() * table).sum(-1).detach()
    torch.testing.assert_close(entropy, exact, atol=1e-4, rtol=1e-4)  # a metric
    torch.testing.assert_close(parts.grad, whole.grad)
    torch.testing.assert_close(head.weight.grad, head_gradient)
    assert found.dtype is entropy.dtype is torch.float32
    assert not entropy.requires_grad


def test_bfloat16_hidden_states_give_float32_numbers() -> None:
    head, hidden, target = problem(1)
    half = head.to(torch.bfloat16)
    found, _ = token_logprobs(half, hidden.bfloat16(), target, torch.ones(TOKENS), chunk=4)
    logits = half(hidden.bfloat16()).float()
    expected = torch.log_softmax(logits, -1)[torch.arange(TOKENS), target]
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected)


def test_entropy_is_for_those_who_ask_and_changes_no_bit_of_the_rest() -> None:
    head, hidden, target = problem(4)
    for temperature in (torch.ones(TOKENS), torch.linspace(0.2, 3.0, TOKENS)):
        (plain, none), (found, entropy) = (
            token_logprobs(head, hidden, target, temperature, chunk=5, entropy=asked)
            for asked in (False, True)
        )
        assert torch.equal(plain, found)
        assert (len(none), len(entropy)) == (0, TOKENS)


def test_extreme_logits_stay_finite() -> None:
    head, hidden, target = problem(2)
    found, entropy = token_logprobs(
        lambda x: head(x) * 1e4, hidden, target, torch.full((TOKENS,), 0.01), chunk=4, entropy=True
    )
    assert torch.isfinite(found).all() and torch.isfinite(entropy).all()


def test_no_tokens_still_belong_to_the_graph() -> None:
    head, hidden, target = problem(3)
    hidden.requires_grad_()
    found, entropy = token_logprobs(
        head, hidden[:0], target[:0], torch.ones(0), chunk=4, entropy=True
    )
    assert found.shape == entropy.shape == (0,)
    found.sum().backward()
    assert hidden.grad is not None and not hidden.grad.any()


@pytest.mark.parametrize(
    ("tokens", "most", "calls"), [(0, 0, 1), (13, 0, 4), (13, 17, 5), (0, 8, 2)]
)
def test_the_head_is_called_as_often_as_on_the_rank_with_most_tokens(
    tokens: int, most: int, calls: int
) -> None:
    head, hidden, target = problem(4)
    seen: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return head(x)

    inputs = hidden[:tokens].requires_grad_(), target[:tokens], torch.ones(tokens)
    found, _ = token_logprobs(counted, *inputs, chunk=4, most=most)
    assert len(seen) == calls and sum(seen) == tokens
    found.sum().backward()
    assert len(seen) == 2 * calls, "in the backward pass, too"
    torch.testing.assert_close(found, token_logprobs(head, *inputs, chunk=4)[0])
