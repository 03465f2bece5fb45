"""Which backend draws: the one that is asked for, or the first that can run on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from engines.bundle.folder import Bundle
from engines.contract import LATENT_PX
from engines.cuda.driver import driver
from engines.engine import HostPrecision, Provider
from engines.errors import (
    PlanMismatchError,
    ProviderUnavailableError,
    RequestError,
    did_you_mean,
    shown,
)
from engines.providers import GPU_PROVIDERS, HOST_PROVIDERS
from engines.threads import checked_threads
from engines.tune.chosen import chosen_settings
from engines.tune.settings import checked_precision
from runtime.host.backend import HostBackend
from runtime.host.pool import EnginePool
from runtime.trajectory import Backend, RequestKind

# What makes a backend one that cannot run here, rather than one that is broken.
_CANNOT = (ProviderUnavailableError, PlanMismatchError)


def opened_backend(
    bundle: Bundle,
    wanted: Provider | str | None,
    *,
    precision: HostPrecision | str | None = None,
    threads: int | None = None,
    low_memory: bool = False,
) -> tuple[Backend, Mapping[Provider, str]]:
    """Open the wanted backend, or the best there is; also says why not a better one.

    A GPU comes first. Of a host's providers the fastest is taken, as `chosen_settings` says.
    precision: what a host computes in; with one, no GPU is looked for. Raises RequestError for an
    unknown name, and whatever opening raises. Only backends that this machine or bundle is not made
    for are passed over: a damaged plan or a full GPU is an error.
    """
    named = None if wanted is None else _named(wanted)
    threads, in_precision = checked_threads(threads), checked_precision(precision)
    if in_precision is not None and named in GPU_PROVIDERS:
        choices = " and ".join(HOST_PROVIDERS)
        raise RequestError(f"precision is for {choices}, not for {wanted}")
    on_host = named in HOST_PROVIDERS or in_precision is not None
    declined: dict[Provider, str] = {}
    for provider in () if on_host else GPU_PROVIDERS if named is None else (named,):
        try:
            return _opened_on_gpu(bundle, provider, low_memory=low_memory), declined
        except _CANNOT as error:
            if named is not None:
                raise
            declined[provider] = str(error)
    try:
        bundle.require_models(named or "drawing on the CPU")
        settings = chosen_settings(bundle, named, in_precision, threads)
        pool = EnginePool(bundle, settings=settings, low_memory=low_memory)
        return HostBackend(pool), declined
    except _CANNOT as error:
        if not declined:
            raise
        reasons = "; ".join(f"{provider}: {reason}" for provider, reason in declined.items())
        raise ProviderUnavailableError(
            f"nothing here can run {bundle.path}: {reasons}; {error}"
        ) from error


def _named(name: Provider | str) -> Provider:
    try:
        return Provider(name)
    except ValueError:
        choices = ", ".join(Provider)
        raise RequestError(
            f"provider must be one of {choices}, got {shown(name)}{did_you_mean(name, Provider)}"
        ) from None


def _opened_on_gpu(bundle: Bundle, name: Provider, *, low_memory: bool) -> Backend:
    """Open a GPU backend, ready for a request's own defaults."""
    provider = GPU_PROVIDERS[name]
    if not provider.from_plans:
        bundle.require_models(name)
    bindings = driver(provider.extra)
    # Imported here: who draws on the CPU loads nothing of it.
    from runtime.gpu.backend import GpuBackend

    backend = GpuBackend(bundle, bindings, provider.open, low_memory=low_memory)
    side = bundle.manifest.dimensions.native_px // LATENT_PX
    try:
        # A bundle may have plans for other sizes only; its requests then say which.
        with suppress(RequestError):
            backend.warm_up(RequestKind(images=1, height=side, width=side))
    except BaseException:
        backend.close()
        raise
    return backend
