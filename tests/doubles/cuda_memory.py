"""Device and pinned memory of the CUDA double: host memory that knows what is alive."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

ALIGNMENT = 256


@dataclass
class Blocks:
    """Live blocks by address. New ones are full of NaN; freed ones stay readable, but are known.

    peak_nbytes: the most that was alive at once since somebody set it.
    """

    live: dict[int, int] = field(default_factory=dict)
    peak_nbytes: int = 0
    _kept: list[ctypes.Array[ctypes.c_uint8]] = field(default_factory=list)

    def allocate(self, nbytes: int) -> int:
        block = (ctypes.c_uint8 * (nbytes + ALIGNMENT))()
        address = -(-ctypes.addressof(block) // ALIGNMENT) * ALIGNMENT
        ctypes.memset(address, 0xFF, nbytes)
        self._kept.append(block)
        self.live[address] = nbytes
        self.peak_nbytes = max(self.peak_nbytes, self.nbytes)
        return address

    def free(self, address: int) -> None:
        ctypes.memset(address, 0xFF, self.live.pop(address))

    def left(self, address: int) -> int | None:
        """Bytes from an address to its block's end; None where nothing is alive."""
        for start, nbytes in self.live.items():
            if start <= address < start + nbytes:
                return start + nbytes - address
        return None

    def holds(self, address: int, nbytes: int) -> bool:
        left = self.left(address)
        return left is not None and nbytes <= left

    @property
    def nbytes(self) -> int:
        return sum(self.live.values())
