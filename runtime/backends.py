"""Which backend draws: the one that is asked for, or the first that can run on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from engines.bundle.folder import Bundle
from engines.contract import LATENT_PX
from engines.cuda.driver import driver
from engines.engine import Provider
from engines.errors import (
    PlanMismatchError,
    ProviderUnavailableError,
    RequestError,
    did_you_mean,
    shown,
)
from engines.providers import GPU_PROVIDERS, HOST_PROVIDERS, GpuProvider
from engines.threads import checked_threads
from runtime.host.backend import HostBackend
from runtime.host.pool import EnginePool
from runtime.trajectory import Backend, RequestKind

# What makes a backend one that cannot run here, rather than one that is broken.
_CANNOT = (ProviderUnavailableError, PlanMismatchError)


def opened_backend(
    bundle: Bundle,
    wanted: Provider | str | None,
    *,
    threads: int | None = None,
    low_memory: bool = False,
) -> tuple[Backend, Mapping[Provider, str]]:
    """Open the wanted backend, or the best there is; also says why not a better one.

    Raises RequestError for an unknown name, and whatever opening raises. Only backends that this
    machine or bundle is not made for are passed over: a damaged plan or a full GPU is an error.
    """
    candidates = list(Provider) if wanted is None else [_named(wanted)]
    threads = checked_threads(threads)
    if low_memory:
        candidates = [each for each in candidates if each in HOST_PROVIDERS][:1]
        if not candidates:
            choices = " and ".join(HOST_PROVIDERS)
            raise RequestError(f"low_memory is for {choices}, not for {wanted}")
    declined: dict[Provider, str] = {}
    for provider in candidates:
        try:
            return _opened(bundle, provider, threads, low_memory=low_memory), declined
        except _CANNOT as error:
            if len(candidates) == 1:
                raise
            declined[provider] = str(error)
    reasons = "; ".join(f"{provider}: {reason}" for provider, reason in declined.items())
    raise ProviderUnavailableError(f"nothing here can run {bundle.path}: {reasons}")


def _named(name: Provider | str) -> Provider:
    try:
        return Provider(name)
    except ValueError:
        choices = ", ".join(Provider)
        raise RequestError(
            f"provider must be one of {choices}, got {shown(name)}{did_you_mean(name, Provider)}"
        ) from None


def _opened(
    bundle: Bundle, provider: Provider, threads: int | None, *, low_memory: bool
) -> Backend:
    if not (provider in GPU_PROVIDERS and GPU_PROVIDERS[provider].from_plans):
        bundle.require_models(provider)
    if provider in GPU_PROVIDERS:
        return _opened_on_gpu(bundle, GPU_PROVIDERS[provider])
    pool = EnginePool(bundle, provider=provider, threads=threads, low_memory=low_memory)
    return HostBackend(pool)


def _opened_on_gpu(bundle: Bundle, provider: GpuProvider) -> Backend:
    """Open a GPU backend, ready for a request's own defaults."""
    bindings = driver(provider.extra)
    # Imported here: who draws on the CPU loads nothing of it.
    from runtime.gpu.backend import GpuBackend

    backend = GpuBackend(bundle, bindings, provider.open)
    side = bundle.manifest.dimensions.native_px // LATENT_PX
    try:
        # A bundle may have plans for other sizes only; its requests then say which.
        with suppress(RequestError):
            backend.warm_up(RequestKind(images=1, height=side, width=side))
    except BaseException:
        backend.close()
        raise
    return backend
