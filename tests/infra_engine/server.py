"""The engine double's two gRPC services, as a program in any language finds them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, resource_pb2, resource_pb2_grpc
from tests.infra_engine.steps import UpdateFailed
from tests.infra_engine.update_double import UpdateDouble, answer
from tests.infra_engine.wire import plain

FEATURES = [
    resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
]
SEVERITIES = {
    engine_pb2.DEBUG: "debug",
    engine_pb2.INFO: "info",
    engine_pb2.WARNING: "warning",
    engine_pb2.ERROR: "error",
}


class EngineDouble(engine_pb2_grpc.EngineServicer, resource_pb2_grpc.ResourceMonitorServicer):
    """What a program asks of the engine while it runs, answered by one update."""

    def __init__(self, update: UpdateDouble) -> None:
        self._update = update

    def GetDeploymentInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        stack = self._update.stack
        return resource_pb2.DeploymentInfo(
            project=stack.project,
            stack=stack.name,
            organization="organization",
            dryRun=self._update.preview,
            supportedFeatures=FEATURES,
        )

    def RegisterResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            return answer(self._update.register(request))
        except UpdateFailed:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the update has ended")

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._update.outputs(request.urn, plain(request.outputs))
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._update.invoke(request.tok, request.args)

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> Any:  # noqa: N802
        return empty_pb2.Empty()

    def Log(self, request: Any, context: Any) -> Any:  # noqa: N802
        severity = SEVERITIES[request.severity]
        if severity == "error":
            self._update.reporter.error(request.message, request.urn)
        elif severity != "debug":
            self._update.reporter.diagnostic(severity, request.message, request.urn)
        return empty_pb2.Empty()


@contextmanager
def listening(update: UpdateDouble) -> Iterator[str]:
    """The address of both services."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        server = grpc.server(pool)
        double = EngineDouble(update)
        engine_pb2_grpc.add_EngineServicer_to_server(double, server)
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(double, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
