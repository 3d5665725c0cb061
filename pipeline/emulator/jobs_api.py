"""The batch inference job routes: create, get, list, delete. There is no cancel, resume or update."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import asdict
from typing import Any

import orjson

from pipeline.emulator import jobs, wire
from pipeline.emulator.messages import Request, Response, answer
from pipeline.emulator.paging import page
from pipeline.emulator.records import Job
from pipeline.emulator.service import Service
from pipeline.emulator.wire import FAILED_PRECONDITION, ApiError, already_exists, invalid, not_found

_HOUR = 3600.0
_WINDOW_HOURS = (12, 24, 72)  # least, default, most: documented bounds of maxJobDuration
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


def create(service: Service, request: Request) -> Response:
    """A new job under the client's id, or under one the server invents."""
    query = request.query
    job_id = query.get("batchInferenceJobId") or query.get("batch_inference_job_id") or _invented()
    if request.deeds.get("own_id"):
        job_id = _invented()
    wire.check_id(job_id, "batch inference job")
    fields = wire.fields(request.json(), wire.JOB_FIELDS, "BatchInferenceJob")
    parameters = wire.fields(fields.get("inferenceParameters", {}), wire.PARAMETER_FIELDS, "inferenceParameters")
    _check_extra_body(parameters.get("extraBody", "{}"))
    placement = wire.fields(fields.get("placement", {}), wire.PLACEMENT_FIELDS, "placement")
    window = _window(fields.get("maxJobDuration", ""))
    with service.store.transaction():
        existing = service.store.job(job_id)
        if existing is not None and (view := service.view(existing)) is not None:
            if request.deeds.get("duplicate") == "return":
                return answer(wire.job(existing, view, service.config.account_id))
            raise already_exists(f"batch inference job {job_id}")
        earlier = _continued(service, fields.get("continuedFromJobName", ""))
        model = fields.get("model") or (earlier.model if earlier else "")
        if not model:
            raise invalid("model is required")
        name = fields.get("inputDatasetId") or (earlier.input_dataset if earlier else "")
        input_dataset = _dataset_id(service, name, "input_dataset_id")
        source = service.store.dataset(input_dataset)
        now = service.now()
        if source is None:
            raise not_found()
        if not source.is_ready(now):
            raise ApiError(FAILED_PRECONDITION, f"input dataset {input_dataset} is not ready")
        output_dataset = _output(service, "" if request.deeds.get("own_output") else fields.get("outputDatasetId", ""))
        _check_quota(service)
        switches = service.faults.for_resource("job", job_id)
        lasting = jobs.durations(job_id, service.config.job_seconds, service.config.realistic)
        timetable = jobs.timetable(job_id, now, now + window, lasting, switches)
        record = Job(
            id=job_id,
            created_at=now,
            expires_at=now + window,
            model=model,
            input_dataset=input_dataset,
            output_dataset=output_dataset,
            example_count=source.example_count,
            **asdict(timetable),
            display_name=fields.get("displayName", ""),
            parameters=parameters,
            precision=fields.get("precision", "BF16"),
            continued_from=earlier.id if earlier else "",
            system_prompt=fields.get("systemPrompt", ""),
            max_job_duration=fields.get("maxJobDuration", ""),
            placement=placement,
            switches=switches,
        )
        service.store.add_job(record)
    service.worker.wake()
    request.effect = f"created job {job_id}"
    return answer(wire.job(record, _seen(service, record), service.config.account_id))


def get(service: Service, request: Request, job: str) -> Response:
    """One job."""
    record = _existing(service, job)
    resource = wire.job(record, _seen(service, record), service.config.account_id)
    return answer(wire.masked(resource, request.query.get("readMask", "")))


def listing(service: Service, request: Request) -> Response:
    """A page of the jobs that are not gone."""
    seen = [(record, service.view(record)) for record in service.store.jobs()]
    resources = [wire.job(record, view, service.config.account_id) for record, view in seen if view is not None]
    return page(request, "batchInferenceJobs", resources)


def delete(service: Service, request: Request, job: str) -> Response:
    """Stop and remove a job. Results that it had written stay."""
    with service.store.transaction():
        record = _existing(service, job)
        if record.deleted_at is not None:
            raise not_found()
        if not _seen(service, record).terminal and record.executed_at is not None:
            service.store.drop_dataset(record.output_dataset)
        record.deleted_at = service.now()
        record.gone_at = record.deleted_at + service.config.delete_seconds
        service.store.update_job(record)
    request.effect = f"deleted job {job}"
    return answer({})


def _existing(service: Service, job_id: str) -> Job:
    record = service.store.job(job_id)
    if record is None or service.view(record) is None:
        raise not_found()
    return record


def _seen(service: Service, record: Job) -> jobs.View:
    view = service.view(record)
    if view is None:  # gone between two looks at the clock
        raise not_found()
    return view


def _continued(service: Service, name: str) -> Job | None:
    if not name:
        return None
    prefix = f"accounts/{service.config.account_id}/batchInferenceJobs/"
    if not name.startswith(prefix):
        raise invalid(f"continued_from_job_name: {name!r} is not a full job name")
    earlier = _existing(service, name.removeprefix(prefix))
    if not _seen(service, earlier).terminal:
        raise ApiError(FAILED_PRECONDITION, f"batch inference job {earlier.id} is still running")
    return earlier


def _dataset_id(service: Service, name: str, field: str) -> str:
    """The id in a full dataset name; a bare id was seen to work as well."""
    if not name:
        raise invalid(f"{field} is required")
    prefix, _, dataset_id = name.rpartition("/")
    if prefix not in ("", f"accounts/{service.config.account_id}/datasets"):
        raise invalid(f"{field}: {name!r} is not a dataset of this account")
    return wire.check_id(dataset_id, "dataset")


def _output(service: Service, name: str) -> str:
    if not name:
        return f"bij-{_invented()}"
    dataset_id = _dataset_id(service, name, "output_dataset_id")
    if service.store.dataset(dataset_id) or service.output_reserved(dataset_id):
        raise already_exists(f"dataset {dataset_id}")
    return dataset_id


def _check_quota(service: Service) -> None:
    quota = service.config.quota
    if quota is None:
        return
    views = [service.view(record) for record in service.store.jobs()]
    running = sum(view is not None and not view.terminal and view.state != jobs.DELETING for view in views)
    if running >= quota:
        use = f"job-submission-count for account {service.config.account_id}, in use: {running}, quota: {quota}"
        raise invalid(f"invalid batch inference job: {use}")


def _window(duration: str) -> float:
    least, default, most = (hours * _HOUR for hours in _WINDOW_HOURS)
    if not duration:
        return default
    found = _DURATION.fullmatch(duration)
    if not found:
        raise invalid(f"max_job_duration: {duration!r} is not a duration such as 86400s")
    return min(max(float(found.group(1)), least), most)


def _check_extra_body(text: str) -> None:
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise invalid(f"inference_parameters.extra_body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise invalid("inference_parameters.extra_body is not a JSON object")


def _invented() -> str:
    letters = string.ascii_lowercase
    return secrets.choice(letters) + "".join(secrets.choice(letters + string.digits) for _ in range(7))
