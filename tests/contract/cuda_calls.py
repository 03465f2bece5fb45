"""Every call we make of the driver, through the real bindings, with a stub of libcuda."""

import ctypes
from contextlib import ExitStack

import numpy as np

from engines.cuda.driver import CudaError, architecture_of, checked, driver
from engines.cuda.gpu import opened_gpu
from engines.cuda.graph import captured
from engines.cuda.streams import Streams


def main() -> None:
    bindings = driver()
    assert architecture_of() == 90
    with opened_gpu(bindings) as gpu, ExitStack() as stack:
        assert gpu.describe() == "Stub (sm_90, CUDA 13.1)"
        assert gpu.free_nbytes() == (1 << 20, 1 << 21)
        with gpu.current():
            pass
        streams = Streams.opened(gpu, stack)
        stream = streams.main
        first, second = (gpu.memory(stack, 1024, "nothing") for _ in range(2))
        pinned = gpu.pinned(stack, 1024, "nothing")
        array = pinned.array(0, (256,), np.float32)
        array[...] = np.arange(256)
        stream.upload(first.address, pinned.address, 1024)
        stream.copy(second.address, first.address, 1024)
        stream.fill_with_zeros(first.address, 1024)
        array[...] = 0
        stream.download(pinned.address, second.address, 1024)
        stream.synchronize()
        assert array[255] == 255

        timed, untimed = gpu.event(stack, timed=True), gpu.event(stack)
        stream.record(timed)
        assert timed.done()
        assert not untimed.done()
        assert timed.ms_since(timed) == 1.5
        captured(stream, stack, lambda: streams.beside(lambda _: None, lambda _: None)).launch()

        library = checked(
            bindings.cuLibraryLoadData(b"cubin", None, None, 0, None, None, 0), "cuLibraryLoadData"
        )
        kernel = checked(bindings.cuLibraryGetKernel(library, b"name"), "cuLibraryGetKernel")
        assert checked(bindings.cuKernelGetParamInfo(kernel, 1), "cuKernelGetParamInfo") == (8, 8)
        try:
            checked(bindings.cuKernelGetParamInfo(kernel, 2), "cuKernelGetParamInfo")
        except CudaError as error:
            assert error.status == 1
        value = ctypes.c_void_p(4096)
        values = (ctypes.c_void_p * 1)(ctypes.addressof(value))
        function = checked(bindings.cuKernelGetFunction(kernel), "cuKernelGetFunction")
        address = ctypes.addressof(values)
        geometry = (3, 1, 1, 32, 1, 1, 0)
        checked(
            bindings.cuLaunchKernel(function, *geometry, stream.handle, address, 0),
            "cuLaunchKernel",
        )
        checked(bindings.cuLibraryUnload(library), "cuLibraryUnload")
    print("done")


if __name__ == "__main__":
    main()
