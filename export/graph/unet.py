"""A U-Net that takes the latents once per image and answers all guidance passes in one call.

Until its first cross-attention a U-Net has not seen the prompt, so up to there all passes of one
image are the same numbers. Here they are computed once and repeated where the prompt enters: at the
first cross-attention's query and at the residuals around it, which is as late as is exact.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class BatchedPassesUNet(nn.Module):
    """Noise prediction of all guidance passes from one copy of the latents.

    forward(latents [images, 4, h, w], timestep [images] float32, prompt_embeds [rows, tokens,
    width]) -> noise_prediction [rows, 4, h, w], where rows = passes * images, pass-major.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        attending = [_has_cross_attention(block) for block in unet.down_blocks]
        if True not in attending:
            raise ValueError("this U-Net has no cross-attention in its down blocks")
        # By its number: under torch.export a block is not the object that it is here.
        self.first_to_see_the_prompt = attending.index(True)
        first = unet.down_blocks[self.first_to_see_the_prompt]
        first.attentions[0] = RepeatingTransformer(first.attentions[0])
        # What follows it in its block has rows already.
        first.resnets = nn.ModuleList(
            [first.resnets[0], *(RowsResnet(each) for each in first.resnets[1:])]
        )

    def forward(self, latents: Tensor, timestep: Tensor, prompt_embeds: Tensor) -> Tensor:
        unet = self.unet
        # The sinusoids stay in the timestep's float32: see build.fp32_islands.
        time_embed = unet.time_embedding(unet.time_proj(timestep).to(latents.dtype))
        rows = prompt_embeds.shape[0]

        hidden = unet.conv_in(latents)
        skips = [hidden]
        for number, block in enumerate(unet.down_blocks):
            if number == self.first_to_see_the_prompt:
                skips = [repeated(skip, rows) for skip in skips]
            hidden, new_skips = _run(block, prompt_embeds, hidden, time_embed)
            skips.extend(new_skips)
            if number == self.first_to_see_the_prompt:
                time_embed = repeated(time_embed, rows)
        hidden = unet.mid_block(hidden, time_embed, encoder_hidden_states=prompt_embeds)
        for block in unet.up_blocks:
            taken = tuple(skips[-len(block.resnets) :])
            del skips[-len(block.resnets) :]
            hidden = _run(block, prompt_embeds, hidden, taken, time_embed)
        noise: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
        return noise


class RowsResnet(nn.Module):
    """A residual block whose images are rows already while the time embedding's are not."""

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.resnet = resnet

    def forward(self, hidden: Tensor, time_embed: Tensor) -> Tensor:
        output: Tensor = self.resnet(hidden, repeated(time_embed, hidden.shape[0]))
        return output


class RepeatingTransformer(nn.Module):
    """The first cross-attending transformer: [images, c, h, w] in, [rows, c, h, w] out."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer: Any = transformer

    def forward(self, hidden: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        outer = self.transformer
        rows, (height, width) = encoder_hidden_states.shape[0], hidden.shape[-2:]
        linear = outer.use_linear_projection
        tokens = outer.norm(hidden)
        tokens = tokens if linear else outer.proj_in(tokens)
        tokens = tokens.flatten(2).transpose(1, 2)
        tokens = outer.proj_in(tokens) if linear else tokens

        first, *others = outer.transformer_blocks
        tokens = tokens + first.attn1(first.norm1(tokens))
        tokens = repeated(tokens, rows) + _cross_attention(
            first.attn2, first.norm2(tokens), encoder_hidden_states
        )
        tokens = tokens + first.ff(first.norm3(tokens))
        for block in others:
            tokens = block(tokens, encoder_hidden_states=encoder_hidden_states)

        tokens = outer.proj_out(tokens) if linear else tokens
        output = tokens.transpose(1, 2).unflatten(2, (height, width))
        output = output if linear else outer.proj_out(output)
        return (output + repeated(hidden, rows),)


def repeated(hidden: Tensor, rows: int) -> Tensor:
    """Repeat images to rows, pass-major: [images, ...] -> [rows, ...]."""
    passes = rows // hidden.shape[0]
    return hidden.unsqueeze(0).expand(passes, *[-1] * hidden.ndim).flatten(0, 1)


def _cross_attention(attention: Any, hidden: Tensor, prompt_embeds: Tensor) -> Tensor:
    """Cross-attention of [images, pixels, c] queries to [rows, tokens, width] prompts."""
    query, key, value = (
        projected.unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for projected in (
            attention.to_q(hidden),
            attention.to_k(prompt_embeds),
            attention.to_v(prompt_embeds),
        )
    )
    attended = F.scaled_dot_product_attention(repeated(query, prompt_embeds.shape[0]), key, value)
    output: Tensor = attention.to_out[0](attended.transpose(1, 2).flatten(2))
    return output


def _has_cross_attention(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def _run(block: Any, prompt_embeds: Tensor, *arguments: Any) -> Any:
    if _has_cross_attention(block):
        return block(*arguments, encoder_hidden_states=prompt_embeds)
    return block(*arguments)
