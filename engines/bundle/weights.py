"""Large files of a bundle checked before they are used, while engines open and not before."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future

from engines.bundle.folder import Bundle
from engines.contract import Component

# Size, time of change and place of a file: what is other for another file of the same name.
_Stamp = tuple[tuple[int, int, int], ...]


class WeightCheck:
    """The digests of components' files, computed in a thread of its own, one file after another."""

    def __init__(self, bundle: Bundle, components: Iterable[Component]) -> None:
        """Begin with these components, in this order."""
        self._bundle = bundle
        self._passed: dict[Component, _Stamp] = {}
        self._results: dict[Component, Future[_Stamp]] = {each: Future() for each in components}
        self._unwanted = threading.Event()
        threading.Thread(target=self._check_all, name="bundle digests", daemon=True).start()

    def require(self, component: Component) -> None:
        """Wait until a component's files are found to be whole; raises BundleCorruptError."""
        if component not in self._passed:
            self._passed[component] = self._results[component].result()

    def require_unchanged(self, component: Component) -> None:
        """The same for files that are about to be read again: looked at anew if they changed."""
        self.require(component)
        stamp = self._stamp(component)
        if stamp != self._passed[component]:
            self._bundle.verify_component(component)
            self._passed[component] = stamp

    def close(self) -> None:
        """Check no further files."""
        self._unwanted.set()

    def _check_all(self) -> None:
        for component, result in self._results.items():
            if self._unwanted.is_set():
                result.cancel()
                continue
            try:
                stamp = self._stamp(component)
                self._bundle.verify_component(component)
                result.set_result(stamp)
            except BaseException as error:
                result.set_exception(error)

    def _stamp(self, component: Component) -> _Stamp:
        paths = sorted(self._bundle.path / name for name in self._bundle.component(component).files)
        statuses = [path.stat() for path in paths if path.exists()]
        return tuple((each.st_size, each.st_mtime_ns, each.st_ino) for each in statuses)
