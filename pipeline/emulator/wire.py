"""JSON as the service's gateway speaks it: names in, resources out, errors.

In: camelCase and snake_case, unknown fields refused with code 3, int64 as number or string. Out:
camelCase, every documented field present (empty ones too), int64 as strings, RFC 3339 times with Z.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from pipeline.emulator.jobs import View
from pipeline.emulator.records import Dataset, Job

# The gateway is a transcoding of gRPC; these are the status codes that its HTTP statuses stand for.
INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, INTERNAL = 3, 5, 6, 7, 9, 13
_HTTP_STATUS = {
    INVALID_ARGUMENT: 400,
    NOT_FOUND: 404,
    ALREADY_EXISTS: 409,
    PERMISSION_DENIED: 403,
    FAILED_PRECONDITION: 400,
    INTERNAL: 500,
}
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_CREATED_BY = "emulator@localhost"


class ApiError(Exception):
    """A refusal: its gRPC code decides the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return _HTTP_STATUS[self.code]

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"code": self.code, "message": self.message, "details": []}


def invalid(message: str) -> ApiError:
    """400 for a request that can never be right."""
    return ApiError(INVALID_ARGUMENT, message)


def already_exists(what: str) -> ApiError:
    """409 for a create under a taken id."""
    return ApiError(ALREADY_EXISTS, f"{what} already exists")


def not_found() -> ApiError:
    """404 in the service's own words."""
    return ApiError(NOT_FOUND, "resource not found")


# --- in ----------------------------------------------------------------------------------------


class Kind(Enum):
    """What a request field may hold."""

    TEXT = "string"
    INT = "integer"
    NUMBER = "number"
    OBJECT = "object"
    ANY = "any"


# Output-only fields are part of the message and therefore no unknown fields: they are accepted and ignored.
_DATASET_TEXTS = (
    "name displayName createTime updateTime createdBy state externalUrl format sourceJobName encryptionState"
)
_JOB_TEXTS = """name displayName createTime updateTime expireTime createdBy state model inputDatasetId outputDatasetId
    precision continuedFromJobName systemPrompt maxJobDuration"""
DATASET_SOURCES = ("userUploaded", "evaluationResult", "transformed", "splitted", "evalProtocol")
DATASET_FIELDS = {
    **dict.fromkeys(_DATASET_TEXTS.split(), Kind.TEXT),
    **dict.fromkeys(("exampleCount", "estimatedTokenCount"), Kind.INT),
    **dict.fromkeys(("status", *DATASET_SOURCES), Kind.OBJECT),
    "averageTurnCount": Kind.NUMBER,
}
CREATE_DATASET_FIELDS = {"dataset": Kind.OBJECT, "datasetId": Kind.TEXT, "sourceDatasetId": Kind.TEXT}
UPLOAD_ENDPOINT_FIELDS = {"filenameToSize": Kind.OBJECT, "name": Kind.TEXT, "readMask": Kind.TEXT}
JOB_FIELDS = {
    **dict.fromkeys(_JOB_TEXTS.split(), Kind.TEXT),
    **dict.fromkeys(("status", "inferenceParameters", "placement", "lifecycle", "jobProgress"), Kind.OBJECT),
    "waitingOnCapacity": Kind.ANY,
}
PARAMETER_FIELDS = {
    "maxTokens": Kind.INT,
    "temperature": Kind.NUMBER,
    "topP": Kind.NUMBER,
    "topK": Kind.INT,
    "n": Kind.INT,
    "extraBody": Kind.TEXT,
}
PLACEMENT_FIELDS = {"multiRegion": Kind.TEXT, "region": Kind.TEXT, "regions": Kind.ANY}
FORMATS = ("FORMAT_UNSPECIFIED", "CHAT", "COMPLETION", "RL")


def fields(body: Any, known: Mapping[str, Kind], message: str) -> dict[str, Any]:
    """The fields of *body* under their camelCase names; null means not set.

    Raises ApiError code 3 for what is no object, an unknown or doubled field, or a wrong type.
    """
    if not isinstance(body, dict):
        raise invalid(f"{message}: expected a JSON object")
    values: dict[str, Any] = {}
    for key, value in body.items():
        name = key if key in known else _camel(key)
        if name not in known:
            raise invalid(f'unknown field "{key}" in {message}')
        if name in values:
            raise invalid(f'field "{name}" of {message} is set twice')
        if value is not None:
            values[name] = _typed(value, known[name], f"{message}.{name}")
    return values


def check_id(text: str, what: str) -> str:
    """*text*, when it may name a resource. Raises ApiError code 3."""
    if not _ID.fullmatch(text):
        raise invalid(
            f"invalid {what} id {text!r}: 1-63 characters of a-z, 0-9 and hyphen, starting with a letter, "
            "not ending with a hyphen"
        )
    return text


def _typed(value: Any, kind: Kind, where: str) -> Any:
    if kind is Kind.INT:
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value):
            return int(value)
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif kind is Kind.NUMBER:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is Kind.TEXT:
        fits = isinstance(value, str)
    elif kind is Kind.OBJECT:
        fits = isinstance(value, dict)
    else:
        fits = True
    if not fits:
        raise invalid(f"invalid value for {kind.value} field {where}: {value!r}")
    return value


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


# --- out ---------------------------------------------------------------------------------------


def timestamp(moment: float) -> str:
    """RFC 3339, UTC, six fractional digits."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def status(code: str = "OK", message: str = "") -> dict[str, str]:
    """A resource's own status: its code is a name, not a number."""
    return {"code": code, "message": message}


def account(name: str, created_at: float) -> dict[str, Any]:
    """An account resource."""
    return {
        "name": f"accounts/{name}",
        "displayName": name,
        "createTime": timestamp(created_at),
        "updateTime": timestamp(created_at),
        "accountType": "ACCOUNT_TYPE_UNSPECIFIED",
        "email": _CREATED_BY,
        "state": "READY",
        "status": status(),
        "suspendState": "UNSUSPENDED",
    }


def dataset(record: Dataset, account_id: str, now: float, external_url: str) -> dict[str, Any]:
    """A dataset resource as of *now*."""
    source = {record.source: record.source_value} if record.source else {}
    return {
        "name": f"accounts/{account_id}/datasets/{record.id}",
        "displayName": record.display_name,
        "createTime": timestamp(record.created_at),
        "updateTime": timestamp(record.ready_at if record.is_ready(now) and record.ready_at else record.updated_at),
        "createdBy": _CREATED_BY,
        "state": "READY" if record.is_ready(now) else "UPLOADING",
        "status": status(),
        "exampleCount": str(record.example_count),
        "estimatedTokenCount": str(sum(file.size for file in record.files) // 4),
        "averageTurnCount": 0,
        "format": record.format,
        "externalUrl": external_url,
        "sourceJobName": f"accounts/{account_id}/batchInferenceJobs/{record.source_job}" if record.source_job else "",
        "encryptionState": "ENCRYPTION_STATE_PLAINTEXT",
        **source,
    }


def job(record: Job, view: View, account_id: str) -> dict[str, Any]:
    """A batch inference job resource, in the state *view* sees it in."""
    prefix = f"accounts/{account_id}"
    resource: dict[str, Any] = {
        "name": f"{prefix}/batchInferenceJobs/{record.id}",
        "displayName": record.display_name,
        "createTime": timestamp(record.created_at),
        "expireTime": timestamp(record.expires_at),
        "updateTime": timestamp(view.since),
        "createdBy": _CREATED_BY,
        "state": view.state_name,
        "status": status(view.code, view.message),
        "model": record.model,
        "inputDatasetId": f"{prefix}/datasets/{record.input_dataset}",
        "outputDatasetId": f"{prefix}/datasets/{record.output_dataset}",
        "inferenceParameters": {"extraBody": "{}", **record.parameters} if record.parameters else None,
        "precision": record.precision,
        "continuedFromJobName": f"{prefix}/batchInferenceJobs/{record.continued_from}" if record.continued_from else "",
        "systemPrompt": record.system_prompt,
        "maxJobDuration": record.max_job_duration or None,
        "placement": None,
        "waitingOnCapacity": False,
        "lifecycle": None,
        "jobProgress": None,
    }
    if view.validated_at is not None:
        resource["placement"] = {
            "multiRegion": record.placement.get("multiRegion", "MULTI_REGION_UNSPECIFIED"),
            "region": "REGION_UNSPECIFIED",
            "regions": [],
        }
        moments = {"validatedTime": view.validated_at, "runStartTime": view.run_started_at, "endTime": view.ended_at}
        resource["lifecycle"] = {key: None if moment is None else timestamp(moment) for key, moment in moments.items()}
        resource["jobProgress"] = _progress(record, view)
    return resource


def masked(resource: dict[str, Any], read_mask: str) -> dict[str, Any]:
    """*resource* with the top-level fields of a comma-separated mask only; an empty mask or `*` keeps all."""
    names = {_camel(path.strip().partition(".")[0]) for path in read_mask.split(",")}
    if names & {"", "*"}:
        return resource
    return {key: value for key, value in resource.items() if key in names}


def ordered(resources: Iterable[dict[str, Any]], order_by: str) -> list[dict[str, Any]]:
    """*resources* by the fields of `a,b desc`; the default is the order of creation."""
    listing = list(resources)
    for term in reversed([term.split() for term in order_by.split(",") if term.strip()]):
        name = {"createdTime": "createTime"}.get(_camel(term[0]), _camel(term[0]))
        if len(term) > 2 or term[1:] not in ([], ["asc"], ["desc"]) or (listing and name not in listing[0]):
            raise invalid(f"invalid order_by: {order_by!r}")
        listing.sort(key=lambda resource: str(resource[name]), reverse=term[1:] == ["desc"])
    return listing


def _progress(record: Job, view: View) -> dict[str, Any]:
    counts = view.counts
    numbers: dict[str, Any] = {
        "percent": view.percent,
        "epoch": 0,
        # An echo of the declared count, not of the file: seen live.
        "totalInputRequests": record.example_count,
        "totalProcessedRequests": counts.succeeded + counts.failed,
        "successfullyProcessedRequests": counts.succeeded,
        "failedRequests": counts.failed,
        "outputRows": counts.succeeded,
        "inputTokens": counts.input_tokens,
        "outputTokens": counts.output_tokens,
        "cachedInputTokenCount": counts.cached_tokens,
    }
    if record.switches.get("progress") == "strings":
        return {key: str(value) for key, value in numbers.items()}
    return numbers
