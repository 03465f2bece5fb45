"""How well a picture and a prompt agree by CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.photographs.faces import Pixels
from benchmarks.photographs.models import JudgeError
from export.checkpoint.model_facts import CLIP_MEAN, CLIP_STD


class Clip:
    """A CLIP model of a folder in transformers' layout."""

    def __init__(self, folder: Path) -> None:
        """Raises JudgeError."""
        from transformers import AutoTokenizer, CLIPModel

        try:
            model: Any = CLIPModel.from_pretrained(folder)
            self._model = model.eval()
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            # Of the system, of transformers, of safetensors: a folder that is none of CLIP's.
            raise JudgeError(f"{folder} is no CLIP model that can be opened: {error}") from error

    @torch.inference_mode()
    def agreement(self, picture: Pixels, prompt: str) -> float:
        """The cosine of the picture's and the prompt's embeddings."""
        longest = self._model.config.text_config.max_position_embeddings
        words = self._tokenizer(prompt, return_tensors="pt", truncation=True, max_length=longest)
        found = self._model(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            pixel_values=self._pixels(picture),
        )
        return float((found.image_embeds[0] * found.text_embeds[0]).sum())

    def _pixels(self, picture: Pixels) -> torch.Tensor:
        """As CLIP was shown pictures: the shorter side resized, the middle cut out."""
        side = self._model.config.vision_config.image_size
        image = Image.fromarray(picture)
        scale = side / min(image.size)
        width, height = (max(side, round(each * scale)) for each in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(resized.crop((left, top, left + side, top + side)), np.float32) / 255
        normalized = (pixels - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
        return torch.tensor(normalized, dtype=torch.float32).permute(2, 0, 1)[None]
