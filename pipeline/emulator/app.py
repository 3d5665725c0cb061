"""Which call goes where: the service's routes, the storage links, and the control routes for tests.

Not here: gRPC. firectl and SDK 0.19 speak `gateway.Gateway` and cannot be pointed at this server.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from typing import Any

from pipeline.emulator import datasets_api, jobs_api, wire
from pipeline.emulator.config import CONTROL, PING
from pipeline.emulator.faults import BadRule
from pipeline.emulator.links import EXTERNAL_PREFIX, PREFIX, LinkRefused
from pipeline.emulator.messages import Request, Response, answer, refusal, text
from pipeline.emulator.paging import page
from pipeline.emulator.service import Service
from pipeline.emulator.wire import PERMISSION_DENIED, ApiError, invalid, not_found
from pipeline.emulator.worker import ERROR_FILE
from pipeline.errors import DiskTrouble

_SETTLE_SECONDS = 60.0  # real ones, for the work that a moved clock makes due

_Handler = Callable[..., Response]
_ACCOUNT = r"/v1/accounts/(?P<account>[^/:]+)"
_DATASET = r"/datasets/(?P<dataset>[^/:]+)"
_JOB = r"/batchInferenceJobs/(?P<job>[^/:]+)"


def handle(service: Service, request: Request) -> Response:
    """The answer to one call; what it changed is durable when this returns."""
    try:
        if request.path.startswith(PREFIX):
            return _storage(service, request)
        if request.path.startswith(EXTERNAL_PREFIX):
            return _external(service, request)
        if request.headers.get("Authorization") != f"Bearer {service.config.api_key}":
            return _bad_key()
        if request.method == "GET" and (request.length or request.length is None):
            return text(400, "<html><title>Error 400 (Bad Request)</title></html>", "text/html; charset=UTF-8")
        return _route(service, request)
    except ApiError as error:
        return refusal(error)
    except DiskTrouble as error:
        return text(507, error.what)
    except LinkRefused as error:
        request.violation = error.violation
        return text(error.status, error.body, "application/xml; charset=UTF-8")


def _route(service: Service, request: Request) -> Response:
    allowed = False
    for method, pattern, handler in _ROUTES:
        found = pattern.fullmatch(request.path)
        if not found:
            continue
        allowed = True
        if method != request.method:
            continue
        names = found.groupdict()
        if names.pop("account", service.config.account_id) != service.config.account_id:
            raise ApiError(PERMISSION_DENIED, "the API key does not belong to this account")
        return handler(service, request, **names)
    if allowed:
        return text(405, "Method Not Allowed")
    raise not_found()


# --- accounts ----------------------------------------------------------------------------------


def _verify_key(service: Service, request: Request) -> Response:
    return answer({}, headers={"x-fireworks-account-id": service.config.account_id})


def _accounts(service: Service, request: Request) -> Response:
    return page(request, "accounts", [wire.account(service.config.account_id, service.store.clock.origin)])


def _account(service: Service, request: Request) -> Response:
    return answer(wire.account(service.config.account_id, service.store.clock.origin))


def _model(service: Service, request: Request) -> Response:
    return answer({"name": request.path.removeprefix("/v1/"), "state": "READY"})


def _bad_key() -> Response:
    error = {"message": "The API key you provided is invalid.", "param": None, "code": "UNAUTHORIZED", "type": "error"}
    return answer({"error": error, "request_id": str(uuid.uuid4())}, 403)


# --- storage -----------------------------------------------------------------------------------


def _storage(service: Service, request: Request) -> Response:
    opened = service.links.check(request.method, request.path, request.query, request.headers, service.now())
    if request.method == "PUT":
        return datasets_api.receive(service, request, opened, request.path.split("/", 4)[4])
    path = service.store.object_path(opened)
    if not path.is_file():
        raise LinkRefused(404, "NoSuchKey", "The specified key does not exist.")
    return Response(200, content_type="application/octet-stream", file=path)


def _external(service: Service, request: Request) -> Response:
    token, _, dataset_id = request.path.removeprefix(EXTERNAL_PREFIX).partition("/")
    if "Authorization" in request.headers:
        raise LinkRefused(403, "AccessDenied", "This link takes no Authorization header.", "authorization at a link")
    record = service.store.dataset(dataset_id)
    if record is None or token != service.links.external_token(dataset_id):
        raise LinkRefused(404, "NoSuchKey", "The specified key does not exist.")
    results = next((file for file in record.files if file.name != ERROR_FILE), None)
    if results is None:
        raise LinkRefused(404, "NoSuchKey", "The specified key does not exist.")
    path = service.store.object_path(results.object_id)
    return Response(200, content_type="application/octet-stream", file=path)


# --- control, for tests only -------------------------------------------------------------------


def _ping(service: Service, request: Request) -> Response:
    identity = {"store_id": service.store.store_id, "pid": os.getpid(), "url": service.url}
    return answer({**identity, "answers_digest": service.config.answers_digest, "now": wire.timestamp(service.now())})


def _calls(service: Service, request: Request) -> Response:
    return answer({"calls": service.store.calls(int(request.query.get("after", "0")))})


def _advance(service: Service, request: Request) -> Response:
    seconds = request.json().get("advance_seconds", 0)
    if not isinstance(seconds, int | float) or seconds < 0:
        raise invalid("advance_seconds is a number, 0 or more: the clock never goes back")
    service.store.advance_clock(seconds)
    service.worker.wake()
    settled = service.worker.settle(_SETTLE_SECONDS)
    return answer({"now": wire.timestamp(service.now()), "settled": settled})


def _add_faults(service: Service, request: Request) -> Response:
    try:
        service.faults.add(request.json().get("rules"))
    except BadRule as error:
        raise invalid(str(error)) from error
    return _list_faults(service, request)


def _list_faults(service: Service, request: Request) -> Response:
    return answer({"rules": service.faults.listing()})


def _reset_faults(service: Service, request: Request) -> Response:
    service.faults.reset()
    return _list_faults(service, request)


def _state(service: Service, request: Request) -> Response:
    return answer(state(service))


def state(service: Service) -> dict[str, Any]:
    """Every job there ever was, as what it cost and what became of it, and every violation seen."""
    records = [(record, service.view(record)) for record in service.store.jobs()]
    return {
        "store_id": service.store.store_id,
        "now": wire.timestamp(service.now()),
        "jobs": [
            {
                "id": record.id,
                "state": view.state if view else "GONE",
                "input_dataset": record.input_dataset,
                "output_dataset": record.output_dataset,
                "rows": record.counts.succeeded + record.counts.failed,
                "succeeded": record.counts.succeeded,
                "failed": record.counts.failed,
                "touched": record.touched,
            }
            for record, view in records
        ],
        "datasets": [record.id for record in service.store.datasets()],
        "violations": [call for call in service.store.calls() if call["violation"]],
    }


_ROUTES: list[tuple[str, re.Pattern[str], _Handler]] = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in (
        ("GET", "/verifyApiKey", _verify_key),
        ("GET", "/v1/accounts", _accounts),
        ("GET", _ACCOUNT, _account),
        ("GET", "/v1/accounts/fireworks/models/[^/]+", _model),  # every model of the service's own is one it knows
        ("POST", f"{_ACCOUNT}/datasets", datasets_api.create),
        ("GET", f"{_ACCOUNT}/datasets", datasets_api.listing),
        ("GET", _ACCOUNT + _DATASET, datasets_api.get),
        ("PATCH", _ACCOUNT + _DATASET, datasets_api.update),
        ("DELETE", _ACCOUNT + _DATASET, datasets_api.delete),
        ("POST", f"{_ACCOUNT}{_DATASET}:upload", datasets_api.upload),
        ("POST", f"{_ACCOUNT}{_DATASET}:getUploadEndpoint", datasets_api.upload_endpoint),
        ("POST", f"{_ACCOUNT}{_DATASET}:validateUpload", datasets_api.validate_upload),
        ("GET", f"{_ACCOUNT}{_DATASET}:getDownloadEndpoint", datasets_api.download_endpoint),
        ("POST", f"{_ACCOUNT}/batchInferenceJobs", jobs_api.create),
        ("GET", f"{_ACCOUNT}/batchInferenceJobs", jobs_api.listing),
        ("GET", _ACCOUNT + _JOB, jobs_api.get),
        ("DELETE", _ACCOUNT + _JOB, jobs_api.delete),
        ("GET", PING, _ping),
        ("GET", f"{CONTROL}calls", _calls),
        ("GET", f"{CONTROL}state", _state),
        ("POST", f"{CONTROL}clock", _advance),
        ("GET", f"{CONTROL}faults", _list_faults),
        ("POST", f"{CONTROL}faults", _add_faults),
        ("DELETE", f"{CONTROL}faults", _reset_faults),
    )
]
