"""Several learners as one: each takes every Nth step of a minibatch, and their gradients are averaged.

All of them draw the same minibatches from the same batch, so that N learners make the steps that one would, to float
error: data parallelism with synchronous gradients.
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Callable

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from actors.errors import LostContactError
from learner.memory.memory import BEGINS
from learner.optimisation.device_faults import device_fault

Columns = dict[str, Tensor]
"""What a learner knows of T steps, by name: [T, …] each."""

_TIMEOUT = datetime.timedelta(seconds=120)
"""How long to wait for another learner; one that died is noticed at once."""


def connect_by(address: str) -> None:
    """Have gloo and NCCL use the interface of this address of this machine, unless the environment names another.

    Gloo would take the address of the machine's name, which Debian makes 127.0.1.1, where no other machine finds it.
    """
    for name, its in psutil.net_if_addrs().items():
        if any(one.address == address for one in its):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")


class Shard:
    """One learner's place among ``count``; alone, everything here is what it would be without.

    Args:
        rank: which one it is.
        count: how many there are.
        address: ``host:port`` where the first one listens; not needed alone.
        device: where tensors are: NCCL connects GPUs, gloo CPUs.
        listener: the first one's socket that listens there, as a number of a file, which is closed in the end; None: it
            opens one.

    Raises:
        LostContactError: the others did not come.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        address: str = "",
        device: torch.device | None = None,
        listener: int | None = None,
    ) -> None:
        self.rank, self.count = rank, count
        if count == 1:
            return
        backend = "nccl" if device is not None and device.type == "cuda" else "gloo"
        host, _, port = address.rpartition(":")
        try:
            store = TCPStore(host, int(port), count, rank == 0, _TIMEOUT, master_listen_fd=listener)
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
        except RuntimeError as error:
            raise LostContactError(f"learner {rank} of {count} found no contact at {address}: {error}") from error

    def share(self, columns: Columns) -> Columns:
        """This learner's steps of these columns, [T, …] each: all of them where there are fewer than learners."""
        if not 1 < self.count <= len(next(iter(columns.values()))):
            return columns
        if BEGINS in columns:  # steps that follow one another stay together
            steps = len(columns[BEGINS])
            mine = slice(steps * self.rank // self.count, steps * (self.rank + 1) // self.count)
            return {name: column[mine] for name, column in columns.items()}
        return {name: column[self.rank :: self.count] for name, column in columns.items()}

    def mean(self, tensor: Tensor, steps: int) -> Tensor:
        """The mean over all steps of what is, in each learner, a mean over ``steps`` steps of its own."""
        if self.count == 1:
            return tensor
        sums = torch.cat([tensor * steps, tensor.new_tensor([float(steps)])])
        self._together(lambda: dist.all_reduce(sums))
        return sums[:-1] / sums[-1]

    def gathered(self, mine: Tensor, steps: int) -> Tensor:
        """A number for each of a minibatch's ``steps`` steps, [B], of those that each learner has for its share."""
        if not 1 < self.count <= steps:
            return mine
        padded = torch.cat([mine, mine.new_zeros(math.ceil(steps / self.count) - len(mine))])
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        self._together(lambda: dist.all_gather(parts, padded))
        return torch.stack(parts, dim=1).flatten()[:steps]

    def agree(self, tensor: Tensor) -> None:
        """Overwrite with the first learner's: processors that round differently must not drift apart."""
        if self.count > 1:
            self._together(lambda: dist.broadcast(tensor, src=0))

    def _together(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except RuntimeError as error:
            if fault := device_fault(error):  # of this one's: the others lose contact with it
                raise fault from error
            raise LostContactError(f"learner {self.rank} lost contact with the others: {error}") from error
