"""SNF for any two epsilon models: the operator, and its example in docs/snf.md."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kernels import fuse_noise
from tests.paths import ROOT
from tests.references import guidance, snf

DOCS = ROOT / "docs" / "snf.md"


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("size", [(2, 13, 21), (1, 3, 70)])
def test_two_pairs_are_fused(size: tuple[int, int, int], channels: int) -> None:
    images, *area = size
    generator = torch.Generator().manual_seed(0)
    scene, subject = torch.randn((2, 2 * images, channels, *area), generator=generator)
    noise, mask = fuse_noise(scene, subject, guidance_scale=7.5)

    pairs = [pair.double().unflatten(0, (2, -1)).numpy() for pair in (scene, subject)]
    tdm, sdm = (guidance.tdm_guided(base, target, 7.5) for base, target in pairs)
    expected = snf.snf(tdm, sdm)
    # Nearer to a tie than 1e-6, float32 rounding decides.
    assert not (mask.numpy() != expected.mask)[np.abs(expected.margin) > 1e-6].any()
    # Three float32 roundings of values up to about 60.
    np.testing.assert_allclose(noise.numpy(), expected.noise, rtol=0, atol=3 * 60 * 2.0**-24)


def test_three_subject_passes_follow_the_papers_equation_2() -> None:
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn((2, 4, 16, 16), generator=generator).half()
    subject = torch.randn((3, 4, 16, 16), generator=generator).half()
    noise, mask = fuse_noise(scene, subject, guidance_scale=5.0)
    null, text, augmented = subject.double()[:, None].numpy()
    paper = guidance.sdm_guided_paper(null, text, augmented, 5.0)
    taken = np.broadcast_to(mask.numpy()[:, None], noise.shape)
    # Rounded to half precision once: 11 bits.
    np.testing.assert_allclose(noise.numpy()[taken], paper[0][taken], rtol=2.0**-10, atol=1e-6)
    assert mask.dtype is torch.bool
    assert noise.dtype is torch.float16


@pytest.mark.parametrize(
    ("scene", "subject", "message"),
    [
        ((3, 4, 8, 8), (2, 4, 8, 8), "2 passes"),
        ((2, 4, 8, 8), (4, 4, 8, 8), "2 passes"),
        ((2, 4, 8, 8), (2, 4, 8, 16), "one size"),
        ((2, 3, 8, 8), (2, 3, 8, 8), "channels"),
        ((2, 4, 2, 8), (2, 4, 2, 8), "h >= 3"),
        ((2, 4, 8, 520), (2, 4, 8, 520), "w <= 512"),
    ],
)
def test_other_shapes_are_refused(
    scene: tuple[int, ...], subject: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fuse_noise(torch.zeros(scene), torch.zeros(subject), guidance_scale=5.0)


def test_other_layouts_are_refused() -> None:
    pair = torch.zeros((2, 4, 8, 8))
    with pytest.raises(ValueError, match="contiguous"):
        fuse_noise(pair, pair.half(), guidance_scale=5.0)
    with pytest.raises(ValueError, match="contiguous"):
        fuse_noise(pair, pair.transpose(2, 3), guidance_scale=5.0)


def test_the_documented_example_runs() -> None:
    example = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert len(example.strip().splitlines()) <= 5  # the import and four lines
    generator = torch.Generator().manual_seed(0)

    def unet(latents: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.randn(latents.shape, generator=generator)

    names = {
        "scene_unet": unet,
        "subject_unet": unet,
        "scheduler": SimpleNamespace(step=lambda noise, _, latents: latents - 0.1 * noise),
        "latents": torch.randn((1, 4, 16, 16), generator=generator),
        "timestep": 981,
        "scene_prompts": None,
        "subject_prompts": None,
    }
    exec(example, names)
    assert isinstance(names["latents"], torch.Tensor)
    assert names["latents"].shape == (1, 4, 16, 16)
