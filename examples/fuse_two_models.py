"""Saliency-adaptive Noise Fusion of two epsilon models of your own (docs/snf.md).

    python examples/fuse_two_models.py [STEPS]

Needs PyTorch, diffusers and Triton. Without a GPU, type TRITON_INTERPRET=1 before it.
"""

import sys

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from face_diffuser.snf import fuse_noise

# Stand-ins with random weights; take two models that share a latent space.
TINY = {
    "block_out_channels": (32, 64), "cross_attention_dim": 32, "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip


@torch.inference_mode()
def main(steps: str = "20") -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    scene, subject = (UNet2DConditionModel(**TINY).to(device) for _ in range(2))
    prompts = torch.randn(2, 77, 32, device=device)  # the empty prompt's embeds, the prompt's
    latents = torch.randn(1, 4, 32, 32, device=device)
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(int(steps))
    for timestep in scheduler.timesteps:
        batch = latents.repeat(2, 1, 1, 1)
        noises = [unet(batch, timestep, prompts).sample.contiguous() for unet in (scene, subject)]
        noise, mask = fuse_noise(*noises, guidance_scale=5.0)
        latents = scheduler.step(noise, timestep, latents).prev_sample
    print(f"the subject's model drew {mask.float().mean():.0%} of the last step's pixels")
    torch.save(latents, "latents.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
