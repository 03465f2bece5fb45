"""The engines of an open bundle: all kept open, or one at a time where memory is short."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engines.bundle.folder import Bundle
from engines.bundle.weights import WeightCheck
from engines.contract import CONTRACTS, Component
from engines.engine import Array, Engine, Provider
from engines.providers import HOST_PROVIDERS
from engines.tune.settings import HostSettings, default_settings
from runtime.outputs import check_output

OpenEngine = Callable[[Bundle, Component], Engine]


class EnginePool:
    """Runs components by name on numpy arrays, binding buffers only when a shape changes.

    settings: by default ONNX Runtime's in float32, on all processors. low_memory: hold one engine
    at a time, opening it again whenever another was used in between. open_engine: instead of the
    provider's own. Weights are compared with their digests while engines open, and before the first
    run of each.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        settings: HostSettings | None = None,
        low_memory: bool = False,
        open_engine: OpenEngine | None = None,
    ) -> None:
        self.settings = settings or default_settings(Provider.ONNXRUNTIME_CPU, None, None)
        self._bundle = bundle
        self._low_memory = low_memory
        self._open_engine = open_engine or open_with(self.settings)
        self._engines: dict[Component, Engine] = {}
        self._buffers: dict[Component, dict[str, Array]] = {}
        self._weights = WeightCheck(bundle, Component)
        if not low_memory:
            self._open_all()

    def run(
        self,
        component: Component,
        inputs: Mapping[str, Array],
        output_shape: tuple[int, ...],
        where: str = "",
    ) -> Array:
        """Run one component; returns its output, valid until this component runs again.

        Inputs are converted to the engine's own element types. Raises NonFiniteError or
        ConstantOutputError, naming the engine and `where` in the run it was, if the output has a
        NaN or an infinity or is the same everywhere, BundleCorruptError for altered weights.
        """
        engine = self._engine(component)
        self._weights.require(component)
        output = CONTRACTS[component].outputs[0].name
        shapes = {name: array.shape for name, array in inputs.items()} | {output: output_shape}
        buffers = self._buffers.get(component, {})
        if {name: buffer.shape for name, buffer in buffers.items()} != shapes:
            buffers = {name: np.zeros(s, engine.dtypes[name]) for name, s in shapes.items()}
            engine.bind(buffers)
            self._buffers[component] = buffers
        for name, array in inputs.items():
            buffers[name][...] = array
        result = buffers[output]
        # What an engine leaves unwritten must not pass for its answer.
        result.fill(np.nan)
        engine.enqueue()
        check_output(component, result, engine.provider, where, self._bundle.path)
        return result

    def close(self) -> None:
        """Close every engine and drop its buffers."""
        self._weights.close()
        self._close_engines()

    def _close_engines(self) -> None:
        self._buffers.clear()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def _open_all(self) -> None:
        """Open every engine, two at a time: each is prepared by one core alone, and most take long.

        More at a time would hold more of what an engine needs only while it is opened.
        """
        with ThreadPoolExecutor(2) as opener:
            jobs = [opener.submit(self._engine, component) for component in Component]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                opener.shutdown(cancel_futures=True)
                self.close()
                raise

    def _engine(self, component: Component) -> Engine:
        if component not in self._engines:
            if self._low_memory:
                self._close_engines()
                self._weights.require_unchanged(component)
            self._engines[component] = self._open_engine(self._bundle, component)
        return self._engines[component]


def open_with(settings: HostSettings) -> OpenEngine:
    """What opens a component with these settings."""

    def opened(bundle: Bundle, component: Component) -> Engine:
        host = HOST_PROVIDERS[settings.provider]
        return host.open(bundle, component, settings.threads, settings.precision)

    return opened
