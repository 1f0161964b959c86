"""A readable device: one person, plain NumPy and PyTorch, no batches. The kernel is compared with it.

`device.py` learns (unit user and none), `interactions.py` makes the samples of units interaction and both.
"""
