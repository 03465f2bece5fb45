"""`python -m server BUNDLE`: pictures over HTTP, and a page to try it."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

from engines import commands
from engines.bundle.records import RecordError
from engines.cli.command import run_command
from engines.cli.flags import add_flags, from_flags
from engines.cli.parser import command_parser
from engines.errors import NotInstalledError
from runtime import FaceDiffuser, share_threads
from runtime.pictures.files import toolkit_version
from server.config import ConfigError, ServerConfig, settings_of


def parser() -> argparse.ArgumentParser:
    """Flags take names and defaults from ServerConfig."""
    flags = command_parser(
        commands.SERVER,
        __doc__,
        ["bundle"],
        ["bundle", "--host", "0.0.0.0", "--keys", "keys.toml", "--store", "people.sqlite"],
    )
    flags.add_argument("--version", action="version", version=toolkit_version())
    flags.add_argument("bundle", type=Path, help="folder that export.build made")
    flags.add_argument(
        "--config", type=Path, metavar="FILE",
        help="TOML file of settings, named as the flags are, with _ for -; flags win over it "
        "(default: none)",
    )  # fmt: skip
    add_flags(flags, ServerConfig)
    flags.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return flags


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    return run_command(
        lambda: _serve(options.bundle, config_of(words)), as_json=options.json, resumes=False
    )


def config_of(words: list[str] | None) -> ServerConfig:
    """What flags say, else what the file of --config says. Raises ConfigError."""
    flags = parser()
    options = flags.parse_args(words)
    if options.config is not None:
        flags.set_defaults(**settings_of(options.config))
        options = flags.parse_args(words)
    try:
        return from_flags(options, ServerConfig)
    except RecordError as error:
        raise ConfigError(str(error)) from error


def _serve(bundle: Path, config: ServerConfig) -> dict[str, Any]:
    try:
        from server.app import make_app
        from server.jobs.engine import EngineClient, LocalEngine
        from server.logs import log_to_stderr, tell
        from server.process import DrainingServer
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            f"the server needs {error.name}; type", fix=commands.installed("server", "cpu")
        ) from error
    log_to_stderr()
    engine: EngineClient
    if config.ray is None:
        share_threads()
        face_diffuser = FaceDiffuser.open(
            bundle, provider=config.provider, precision=config.precision, threads=config.threads,
            low_memory=config.low_memory, quantization=config.quantization,
        )  # fmt: skip
        face_diffuser.warm_up()
        engine = LocalEngine(face_diffuser, max_photo_pixels=config.max_photo_pixels)
        provider = face_diffuser.provider
    else:
        from server.cluster.application import opened_on_ray

        engine, provider = opened_on_ray(bundle, config)
    server = DrainingServer(make_app(engine, config), config)
    # All there is by now stays: the collector need not look at it while pictures are drawn.
    gc.collect()
    gc.freeze()
    tell("open", provider=provider, engines=engine.engines, host=config.host, port=config.port)
    server.run()
    return {"provider": provider}


if __name__ == "__main__":
    sys.exit(main())
