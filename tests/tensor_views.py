"""The ways in which a tensor's memory outlives the tensor."""

import numpy as np
import torch

KINDS_OF_VIEWS = [
    lambda tensor: tensor[3],
    lambda tensor: tensor.view(torch.int32)[0, 0],
    lambda tensor: tensor.numpy()[5],
    lambda tensor: memoryview(tensor.numpy()),
    lambda tensor: tensor.detach(),
    torch.from_dlpack,
    lambda tensor: tensor.untyped_storage(),
    np.from_dlpack,
]
