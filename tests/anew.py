"""A second import of the functions, with another DynamoDB or configuration than the first."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import botocore.config
from werkzeug.test import Client

from infra.local.gateway import FUNCTIONS, Gateway
from infra.openapi import INTEGRATIONS


@contextmanager
def gateway(configuration: dict[str, object] | None = None, **parameters: str) -> Iterator[Gateway]:
    """A gateway to functions with these parameters of the stack, and these options of botocore besides their own."""
    original = botocore.config.Config

    def config(**options: object) -> botocore.config.Config:
        return original(**options | (configuration or {}))  # type: ignore[arg-type]

    others = _forget()
    with mock.patch.object(botocore.config, "Config", config), mock.patch.dict(os.environ):
        gateway = Gateway(**INTEGRATIONS | parameters)
        Client(gateway).get("/")  # the first request imports the functions
        try:
            yield gateway
        finally:
            _forget()
            sys.modules.update(others)


def _forget() -> dict[str, ModuleType]:
    """Remove the functions' modules from the imported ones; return them."""
    names = {path.stem for path in FUNCTIONS.iterdir()}
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}
