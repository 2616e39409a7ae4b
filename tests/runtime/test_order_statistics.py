from __future__ import annotations

import numpy as np
import pytest

from fertool.runtime.order_statistics import median_interval, start_time


# Tables of the sign test: the k-th smallest and the k-th largest of n samples, at least 95 %.
@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (100, 40)]
)
def test_the_interval_is_that_of_the_tables(n: int, k: int) -> None:
    samples = list(np.random.default_rng(0).permutation(n) + 1.0)
    assert median_interval(samples) == (k, n + 1 - k)


def test_it_covers_the_median_of_skewed_samples() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        low, high = median_interval(generator.exponential(size=7).tolist())
        covered += low <= np.log(2) <= high
    assert covered >= 950


def test_the_samples_stand_beside_the_median_in_their_order() -> None:
    found = start_time([3.0, 1.0, 2.0])
    assert (found.median, found.median_ci95, found.samples) == (2.0, (1.0, 3.0), (3.0, 1.0, 2.0))
