import pytest
import torch
from torch import nn

from fertool.training.sharpness_aware import sam_perturbation


class Quadratic(nn.Module):
    """f(w) = w A w / 2, with the gradient A w."""

    def __init__(self):
        super().__init__()
        self.a = torch.diag(torch.tensor([1.0, 4.0, 9.0]))
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self):
        return self.w @ self.a @ self.w / 2


@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_the_perturbation_is_equation_2_of_the_paper(scale):
    f, rho = Quadratic(), 0.1
    start = f.w.detach().clone()
    (scale * f()).backward()
    gradient = f.a @ start
    with sam_perturbation(f, rho):
        torch.testing.assert_close(f.w.detach(), start + rho * gradient / gradient.norm())
        f.zero_grad()
        f().backward()
    assert torch.equal(f.w, start)
    torch.testing.assert_close(f.w.grad, f.a @ (start + rho * gradient / gradient.norm()))
    assert torch.equal(f.unused, torch.ones(2))


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_a_gradient_without_a_direction_moves_nothing(value):
    f = Quadratic()
    start = f.w.detach().clone()
    f.w.grad = torch.tensor([0.0, value, 0.0])
    with sam_perturbation(f, 0.1):
        assert torch.equal(f.w, start)
    assert torch.equal(f.w, start)


def test_statistics_are_recorded_only_at_the_weights_of_the_step():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).train()
    frozen = nn.BatchNorm1d(4).eval()
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    module(inputs).square().sum().backward()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    in_training = module[1](inputs @ torch.ones(3, 4))
    module.load_state_dict(before)
    with sam_perturbation(nn.ModuleList([module, frozen]), 0.1):
        torch.testing.assert_close(
            module[1](inputs @ torch.ones(3, 4)), in_training, atol=0.2, rtol=0
        )
        module(inputs)
        torch.testing.assert_close(frozen(torch.ones(2, 4)), torch.full((2, 4), (1 + 1e-5) ** -0.5))
    after = module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    module(inputs)
    assert module[1].num_batches_tracked == 2


def test_an_error_within_puts_the_weights_back():
    f = Quadratic()
    start = f.w.detach().clone()
    f().backward()
    with pytest.raises(RuntimeError), sam_perturbation(f, 0.1):
        raise RuntimeError
    assert torch.equal(f.w, start)
