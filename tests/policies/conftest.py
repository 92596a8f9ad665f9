"""One thread for PyTorch: tests have small tensors, and threads that wait for each other are slow on a busy machine."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def single_threaded_torch():
    import torch

    torch.set_num_threads(1)
