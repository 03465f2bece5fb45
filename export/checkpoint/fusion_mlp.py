"""The fusion MLP: mixes a person's image embedding into the word that names them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FusionMLP(nn.Module):
    """Puts each person's embedding into the text embedding of the token before their marker.

    forward(text_embeds [n, tokens, text_width], token_subject_embeds [n, tokens, subject_width],
    subject_token_mask [n, tokens] bool) -> augmented_embeds [n, tokens, text_width]; tokens outside
    the mask pass through unchanged. It is evaluated at all tokens, whose number is fixed, so that
    the exported graph has no shape that depends on values.
    State-dict keys are those of the released postfuse_module.
    """

    def __init__(self, text_width: int, subject_width: int) -> None:
        super().__init__()
        self.mlp1 = _MLP(text_width + subject_width, text_width)
        self.mlp2 = _MLP(text_width, text_width)
        self.layer_norm = nn.LayerNorm(text_width)

    def forward(
        self, text_embeds: Tensor, token_subject_embeds: Tensor, subject_token_mask: Tensor
    ) -> Tensor:
        mixed = self.mlp1(torch.cat([text_embeds, token_subject_embeds], dim=-1)) + text_embeds
        mixed = self.mlp2(mixed) + mixed
        mixed = self.layer_norm(mixed)
        return torch.where(subject_token_mask.unsqueeze(-1), mixed, text_embeds)


class _MLP(nn.Module):
    """Layer norm, linear, exact GELU, linear."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(in_width)
        self.fc1 = nn.Linear(in_width, out_width)
        self.fc2 = nn.Linear(out_width, out_width)

    def forward(self, hidden: Tensor) -> Tensor:
        activated = nn.functional.gelu(self.fc1(self.layernorm(hidden)))
        output: Tensor = self.fc2(activated)
        return output
