"""The dataset routes: create, upload (small and signed), validate, get, list, update, delete, download links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline import disk
from pipeline.emulator import bodies, wire
from pipeline.emulator.messages import Request, Response, answer, text
from pipeline.emulator.paging import page
from pipeline.emulator.records import NEVER, Dataset, StoredFile
from pipeline.emulator.service import Service
from pipeline.emulator.wire import FAILED_PRECONDITION, ApiError, already_exists, invalid, not_found

UPLOAD_LIMIT = 150_000_000  # bytes in one `:upload`, as documented

_ALREADY_UPLOADED = "dataset {} is already uploaded"


def create(service: Service, request: Request) -> Response:
    """A new dataset that waits for its upload."""
    body = wire.fields(request.json(), wire.CREATE_DATASET_FIELDS, "CreateDatasetRequest")
    dataset_id = wire.check_id(body.get("datasetId", ""), "dataset")
    fields = wire.fields(body.get("dataset", {}), wire.DATASET_FIELDS, "dataset")
    sources = [name for name in wire.DATASET_SOURCES if name in fields]
    if len(sources) > 1:
        raise invalid(f"dataset: only one of {', '.join(sources)} may be set")
    if "exampleCount" not in fields and "externalUrl" not in fields:
        raise invalid("error validating dataset: example_count is required for uploaded datasets")
    if (form := fields.get("format", wire.FORMATS[0])) not in wire.FORMATS:
        raise invalid(f"dataset.format: {form!r} is none of {', '.join(wire.FORMATS)}")
    now = service.now()
    with service.store.transaction():
        if existing := service.store.dataset(dataset_id):
            if request.deeds.get("duplicate") == "return":
                return _resource(service, existing)
            raise already_exists(f"dataset {dataset_id}")
        if service.output_reserved(dataset_id):
            raise already_exists(f"dataset {dataset_id}")
        record = Dataset(
            id=dataset_id,
            created_at=now,
            updated_at=now,
            example_count=fields.get("exampleCount", 0),
            display_name=fields.get("displayName", ""),
            format=form,
            source=sources[0] if sources else "",
            source_value=fields[sources[0]] if sources else None,
            external_url=fields.get("externalUrl", ""),
            switches=service.faults.for_resource("dataset", dataset_id),
        )
        record.external_url = record.switches.get("external_url", record.external_url)
        service.store.put_dataset(record)
    request.effect = f"created dataset {dataset_id}"
    return _resource(service, record)


def get(service: Service, request: Request, dataset: str) -> Response:
    """One dataset."""
    return _resource(service, _existing(service, dataset), request.query.get("readMask", ""))


def listing(service: Service, request: Request) -> Response:
    """A page of the datasets."""
    resources = [
        wire.dataset(record, service.config.account_id, service.now(), _external_url(service, record))
        for record in service.store.datasets()
    ]
    return page(request, "datasets", resources)


def update(service: Service, request: Request, dataset: str) -> Response:
    """Change what may be changed: the display name and the declared count."""
    fields = wire.fields(request.json(), wire.DATASET_FIELDS, "dataset")
    with service.store.transaction():
        record = _existing(service, dataset)
        record.display_name = fields.get("displayName", record.display_name)
        record.example_count = fields.get("exampleCount", record.example_count)
        record.updated_at = service.now()
        service.store.put_dataset(record)
    return _resource(service, record)


def delete(service: Service, request: Request, dataset: str) -> Response:
    """Remove a dataset and its bytes."""
    _existing(service, dataset)
    service.store.drop_dataset(dataset)
    request.effect = f"deleted dataset {dataset}"
    return answer({})


def upload(service: Service, request: Request, dataset: str) -> Response:
    """The one-file upload, multipart."""
    _waiting_for_upload(service, dataset)
    if request.length is not None and request.length > UPLOAD_LIMIT:
        return text(413, "Request Entity Too Large")
    object_id = service.store.new_object()
    try:
        with disk.replacing(service.store.object_path(object_id)) as replacement:
            name = bodies.multipart_file(request.body, request.headers.get("Content-Type", ""), replacement.write)
    except bodies.BadBody as error:
        raise invalid(f"invalid upload: {error}") from error
    size = replacement.written.size
    with service.store.transaction():
        record = _waiting_for_upload(service, dataset)
        record.files = [StoredFile(name, object_id, size)]
        _uploaded(service, record)
    request.effect = f"uploaded dataset {dataset}"
    created = int(record.created_at)
    file = {"id": f"accounts/{service.config.account_id}/datasets/{dataset}", "object": "file", "bytes": size}
    return answer({**file, "created_at": created, "filename": name, "purpose": "dataset"})


def upload_endpoint(service: Service, request: Request, dataset: str) -> Response:
    """Signed links for a large upload; the announced files replace those of an earlier call."""
    body = wire.fields(request.json(), wire.UPLOAD_ENDPOINT_FIELDS, "GetDatasetUploadEndpointRequest")
    sizes = {name: _size(name, size) for name, size in body.get("filenameToSize", {}).items()}
    if not sizes:
        raise invalid("filename_to_size is required")
    with service.store.transaction():
        record = _waiting_for_upload(service, dataset)
        record.registered = sizes
        record.arrived = []
        service.store.put_dataset(record)
    now = service.now()
    links = {name: service.links.upload(dataset, name, size, now) for name, size in sizes.items()}
    return answer({"filenameToSignedUrls": links})


def validate_upload(service: Service, request: Request, dataset: str) -> Response:
    """End of a signed upload: every announced file must have arrived whole."""
    request.json()
    with service.store.transaction():
        record = _existing(service, dataset)
        if record.files:
            return answer({})
        arrived = {file.name: file for file in record.arrived}
        for name, size in record.registered.items():
            if name not in arrived or arrived[name].size != size or size == 0:
                raise ApiError(FAILED_PRECONDITION, f"file {name} of dataset {dataset} is missing, incomplete or empty")
        if not record.registered:
            raise ApiError(FAILED_PRECONDITION, f"no upload was announced for dataset {dataset}")
        record.files, record.arrived = [arrived[name] for name in record.registered], []
        _uploaded(service, record)
    request.effect = f"uploaded dataset {dataset}"
    return answer({})


def receive(service: Service, request: Request, dataset: str, name: str) -> Response:
    """The PUT to a signed upload link; type and announced size are covered by the signature."""
    object_id = service.store.new_object()
    path = service.store.object_path(object_id)
    announced = int(request.headers["X-Goog-Content-Length-Range"].partition(",")[0])
    try:
        with disk.replacing(path) as replacement:
            bodies.copy(request.body, replacement.write)
    except bodies.BadBody as error:
        raise invalid(str(error)) from error
    size = replacement.written.size
    if size != announced:
        disk.remove(path)
        return text(400, "<Error><Code>EntityTooLarge</Code></Error>", "application/xml; charset=UTF-8")
    with service.store.transaction():
        record = service.store.dataset(dataset)
        if record is None or name not in record.registered or record.files:
            raise not_found()
        record.arrived = [file for file in record.arrived if file.name != name] + [StoredFile(name, object_id, size)]
        service.store.put_dataset(record)
    return Response(200, content_type="text/html; charset=UTF-8")


def download_endpoint(service: Service, request: Request, dataset: str) -> Response:
    """Signed links to the files of a dataset, on request also of those its job continued."""
    record = _existing(service, dataset)
    if not record.is_ready(service.now()):
        raise ApiError(FAILED_PRECONDITION, f"dataset {dataset} is not ready")
    chain = [record]
    if request.query.get("downloadLineage") == "true":
        chain = [*_lineage(service, record), record]
    links = {
        f"dataset/{member.id}/{file.name}": service.links.download(file.object_id, file.name, service.now())
        for member in chain
        for file in member.files
    }
    return answer({"filenameToSignedUrls": links})


def _existing(service: Service, dataset_id: str) -> Dataset:
    record = service.store.dataset(dataset_id)
    if record is None:
        raise not_found()
    return record


def _waiting_for_upload(service: Service, dataset_id: str) -> Dataset:
    record = _existing(service, dataset_id)
    if record.files:
        raise invalid(_ALREADY_UPLOADED.format(dataset_id))
    return record


def _uploaded(service: Service, record: Dataset) -> None:
    record.updated_at = service.now()
    record.ready_at = record.updated_at + service.config.ready_seconds
    if stuck := record.switches.get("stuck"):
        record.ready_at += stuck.get("seconds") or NEVER
    service.store.put_dataset(record)


def _resource(service: Service, record: Dataset, read_mask: str = "") -> Response:
    resource = wire.dataset(record, service.config.account_id, service.now(), _external_url(service, record))
    return answer(wire.masked(resource, read_mask))


def _external_url(service: Service, record: Dataset) -> str:
    # Made anew each time: the port may be another one after a restart.
    return service.links.external(record.id) if record.external_url == "serve" else record.external_url


def _size(name: str, size: Any) -> int:
    if not name or "/" in name or name in (".", "..") or "\n" in name:
        raise invalid(f"filename_to_size: {name!r} is not a base name")
    if isinstance(size, str) and size.isascii() and size.isdecimal():
        return int(size)
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    raise invalid(f"filename_to_size[{name!r}]: {size!r} is not a size in bytes")


def _lineage(service: Service, record: Dataset) -> Iterator[Dataset]:
    """The outputs of the jobs that *record*'s job continued, oldest first."""
    job = service.store.job(record.source_job)
    if job is None or not job.continued_from:
        return
    earlier = service.store.job(job.continued_from)
    output = service.store.dataset(earlier.output_dataset) if earlier else None
    if output is not None:
        yield from _lineage(service, output)
        yield output
