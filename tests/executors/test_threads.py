import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from cryobridge.executors.threads import n_threads, thread_count


def threads_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_torch_takes_no_more_threads_than_its_worker_has_while_another_one_ends():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    begun, may_end, first_ended = threading.Event(), threading.Event(), threading.Event()

    def first():
        with n_threads(1):
            begun.set()
            may_end.wait(10)
        first_ended.set()

    def second():
        with n_threads(1):
            may_end.set()
            first_ended.wait(10)
            return thread_count(), torch.get_num_threads(), threads_of_a_new_thread()

    try:
        with ThreadPoolExecutor(2) as pool:
            pool.submit(first)
            begun.wait(10)
            assert pool.submit(second).result() == (1, 1, 1)
        assert torch.get_num_threads() == threads_of_a_new_thread() == 3
    finally:
        torch.set_num_threads(before)
