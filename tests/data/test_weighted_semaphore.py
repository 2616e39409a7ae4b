import threading
import time
from concurrent.futures import ThreadPoolExecutor

from fertool.data.weighted_semaphore import WeightedSemaphore


def test_threads_never_hold_more_than_the_total():
    budget, lock, held, most = WeightedSemaphore(10), threading.Lock(), 0, 0

    def work(amount):
        nonlocal held, most
        with budget.acquire(amount):
            with lock:
                held += min(amount, 10)
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= min(amount, 10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 4, 9, 25, 3, 0, 10, 7] * 5))
    assert most <= 10
    assert held == 0


def test_an_error_gives_back_what_was_held():
    budget = WeightedSemaphore(1)
    for _ in range(3):
        try:
            with budget.acquire(1):
                raise ValueError
        except ValueError:
            pass
    with budget.acquire(1):
        pass
