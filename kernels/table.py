"""Where the kernels find a step's numbers on the device.

The coefficient table is `runtime.method.schedule.device_table`: [steps + 1, 10] float32, zeros in
the last row. The kernels import triton alone, so its columns are stated again here; a test holds
them equal to `runtime.method.schedule.Column`.
"""

import triton.language as tl

LATENTS = tl.constexpr(0)
NOISE = tl.constexpr(1)
HISTORY_0 = tl.constexpr(2)
KEEP_SLOT = tl.constexpr(5)
GUIDANCE_SCALE = tl.constexpr(6)
TIMESTEP = tl.constexpr(7)
KEEP_LATENTS = tl.constexpr(8)
KEEP_NOISE = tl.constexpr(9)
COLUMNS = tl.constexpr(10)

HISTORY_SLOTS = tl.constexpr(3)

# What a step does with what guidance adds to the target pass: nothing, keep it, or add it again.
DELTA_KEPT = tl.constexpr(1)
DELTA_ADDED = tl.constexpr(2)

# The clock, [2] int32, zeros before the first step: the step, and how many programs have read it.
STEP = tl.constexpr(0)
ARRIVALS = tl.constexpr(1)

# Faults, [4] int32, zeros before the first step: 0, or 1 + the first step at which the model
# predicted a number that is not finite; for the decoder, 1 + the image.
TDM = tl.constexpr(0)
SDM = tl.constexpr(1)
DECODER = tl.constexpr(2)
