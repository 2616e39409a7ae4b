import numpy as np
import pytest

from fertool.routing_metrics import best_mixture, measure_routing

GATED = ((0,), (1,))
CASCADE = ((0, 1), (1,))


def random_profiles(images=400, seed=0):
    draw = np.random.default_rng(seed)
    return draw.random((2, images)) < np.array([[0.7], [0.6]]), draw


def test_a_random_choice_is_worth_nothing_and_the_best_one_everything():
    correct, draw = random_profiles()
    at_random = draw.permutation(np.arange(400) % 4 == 0).astype(int)
    found = measure_routing(correct, at_random, (100, 50), GATED)
    assert found.random_accuracy == pytest.approx(
        0.75 * correct[0].mean() + 0.25 * correct[1].mean()
    )
    assert found.paired_p > 0.05
    low, high = found.difference_ci95
    assert low < 0 < high

    best = np.where(correct[0] >= correct[1], 0, 1)
    found = measure_routing(correct, best, (100, 50), GATED)
    assert found.accuracy == correct.any(0).mean()
    assert found.difference > 0.05
    assert found.paired_p < 1e-6
    assert found.difference_ci95[0] > 0


def test_of_gates_that_know_nothing_one_in_twenty_seems_to():
    found = []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        # Equally good, so that sending on what they differ on is no gain by itself.
        correct = draw.random((2, 400)) < 0.65
        differs = correct[0] != correct[1]
        chosen = (draw.random(400) > 0.1 + 0.6 * differs).astype(int)
        found.append(measure_routing(correct, chosen, (100, 50), GATED))
    assert np.mean([each.paired_p < 0.05 for each in found]) == pytest.approx(0.05, abs=0.04)
    covered = [each.difference_ci95[0] <= 0 <= each.difference_ci95[1] for each in found]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)


def test_at_the_same_macs_a_cascade_pays_for_its_narrow_profile_too():
    correct = np.array([[True] * 10, [False] * 10])
    chosen = np.array([0] * 5 + [1] * 5)
    gated = measure_routing(correct, chosen, (100, 50), GATED)
    cascade = measure_routing(correct, chosen, (100, 50), CASCADE)
    assert gated.same_macs_accuracy == pytest.approx(0.5)
    assert cascade.same_macs_accuracy == pytest.approx(1.0)
    assert gated.random_accuracy == cascade.random_accuracy == 0.5


def test_networks_that_answer_alike_leave_nothing_to_test():
    correct = np.array([[True, False], [True, False]])
    found = measure_routing(correct, [0, 1], (2, 1), GATED)
    assert found.paired_p == 1
    assert found.difference == 0


@pytest.mark.parametrize(("macs", "wanted"), [(50, 0.6), (75, 0.65), (100, 0.7), (200, 0.7)])
def test_the_best_mixture_lies_between_the_profiles(macs, wanted):
    assert best_mixture((100, 50), (0.7, 0.6), macs) == pytest.approx(wanted)
