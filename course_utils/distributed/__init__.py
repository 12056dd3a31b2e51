"""One model on several processes, on PyTorch's own distributed engine.

`tensor_parallel` gives each process a part of every weight matrix, for a model that is too large or too slow for one
machine. `data_parallel` gives each process a part of every training step. `launch` starts the processes with
`torchrun`, and `python -m torch.distributed.run --standalone --nproc-per-node 2 -m course_utils.distributed` runs an
example of either.
"""
