"""Which settings a bundle is opened with on the host: what was measured, else what is certain."""

from __future__ import annotations

import logging
import os

from engines import commands
from engines.bundle.folder import Bundle
from engines.contract import Component
from engines.engine import HostPrecision, Provider
from engines.errors import ProviderUnavailableError
from engines.providers import HOST_PROVIDERS
from engines.tune.record import kept
from engines.tune.settings import CallTime, HostSettings, default_settings, kinds

# "never" keeps an opening from measuring anything.
VARIABLE = "FACE_DIFFUSER_TUNE"
# Above this size of a U-Net's weights a picture takes minutes on a CPU, and an opening measures.
# Below it, measuring would take as long as many pictures.
_WORTH_NBYTES = 64 << 20
# In all, at an opening.
_LIMIT_S = 180.0
_LOGGER = logging.getLogger("face_diffuser.tune")


def chosen_settings(
    bundle: Bundle,
    provider: Provider | None,
    precision: HostPrecision | None,
    threads: int | None,
) -> HostSettings:
    """The fastest settings that fit what is asked for; None leaves the choice.

    What was measured here before decides, by an opening or by engines.tune. Else, where a U-Net is
    large and there is a choice, this measures (in at most three minutes, and says so as a warning
    of the logger "face_diffuser.tune"); small ones take float32 on the first provider that is
    installed, on all processors. Raises ProviderUnavailableError where nothing fits.
    """
    record = kept(bundle)
    found = None if record is None else record.fastest(provider, precision, threads)
    if found is not None:
        return found.settings
    if _is_worth_measuring(bundle) and len(list(kinds(provider, precision))) > 1:
        return _measured(bundle, provider, precision, threads)
    reasons = []
    for each in HOST_PROVIDERS if provider is None else (provider,):
        try:
            HOST_PROVIDERS[each].library()
            return default_settings(each, precision, threads)
        except ProviderUnavailableError as error:
            if provider is not None:
                raise
            reasons.append(f"{each}: {error}")
    raise ProviderUnavailableError("; ".join(reasons))


def measured_call(bundle: Bundle, settings: HostSettings) -> CallTime | None:
    """What was measured here of these very settings."""
    record = kept(bundle)
    found = () if record is None else record.calls
    return next((each for each in found if each.settings == settings), None)


def _is_worth_measuring(bundle: Bundle) -> bool:
    nbytes = bundle.component(Component.SDM_UNET).onnx_nbytes()
    return nbytes >= _WORTH_NBYTES and os.environ.get(VARIABLE) != "never"


def _measured(
    bundle: Bundle,
    provider: Provider | None,
    precision: HostPrecision | None,
    threads: int | None,
) -> HostSettings:
    _LOGGER.warning(
        "measuring once what computes %s fastest on this processor, in at most %.0f s; beforehand, "
        "or again: %s",
        bundle.path, _LIMIT_S, commands.typed(commands.TUNE, bundle.path),
    )  # fmt: skip
    # Imported here: it is done once, and an opening must be quick.
    from engines.tune.race import in_words, race

    record = race(
        bundle, provider=provider, precision=precision, threads=threads, limit_s=_LIMIT_S,
        say=_LOGGER.info,
    )  # fmt: skip
    found = record.fastest(provider, precision, threads)
    assert found is not None  # a race measures something that fits, or raises
    _LOGGER.warning(
        "%s is the fastest: %s a call", found.settings.in_words(), in_words(found.call_s)
    )
    return found.settings
