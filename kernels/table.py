"""Where the kernels find a step's numbers on the device.

The coefficient table is `runtime.schedule.coefficient_table`: [steps, 8] float32. The kernels
import triton alone, so its columns are stated again here; a test holds them equal to
`runtime.schedule.Column`.
"""

import triton.language as tl

LATENTS = tl.constexpr(0)
NOISE = tl.constexpr(1)
HISTORY_0 = tl.constexpr(2)
KEEP_SLOT = tl.constexpr(5)
GUIDANCE_SCALE = tl.constexpr(6)
COLUMNS = tl.constexpr(8)

HISTORY_SLOTS = tl.constexpr(3)

# The clock, [2] int32, zeros before the first step: the step, and how many programs have read it.
STEP = tl.constexpr(0)
ARRIVALS = tl.constexpr(1)
