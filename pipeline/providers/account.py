"""One account at Fireworks: its resources by name, and what a refusal means.

404 is the one answer that means "there is none"; whatever else keeps a resource from being shown is
an error, since "unknown" is never "no".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

from pipeline.errors import ConfigError, ProviderError, QuotaFull, Unreachable
from pipeline.plain import readable
from pipeline.providers import resources
from pipeline.providers.http import Answer, Api, Trouble
from pipeline.providers.resources import Fields, last_segment

PAGE = 200  # resources a page, the most there is
MAX_PAGES = 10_000

NOTHING_SPENT = "No job was created: nothing was spent."

JOBS = "batchInferenceJobs"
DATASETS = "datasets"


class Account:
    """The account *name*; when that is None the service is asked which one the key belongs to."""

    def __init__(self, api: Api, name: str | None) -> None:
        self.api = api
        self._given = name

    @cached_property
    def name(self) -> str:
        """The account's id. Raises ConfigError when the key belongs to several and the service names none."""
        if self._given and (given := last_segment(self._given.rstrip("/"))):
            return given
        answer = self.api.call("GET", "/v1/accounts", query={"pageSize": str(PAGE)})
        entries: Any = answer.fields.get("accounts") if answer.ok else None
        listed = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        names = [last_segment(resources.text(entry, "name")) for entry in listed]
        if len(names) == 1 and names[0] and not answer.fields.get("nextPageToken"):
            return names[0]
        with suppress(Trouble):  # an older way, which not every service has: no reason to wait for it
            verified = self.api.call("GET", "/verifyApiKey", any_body=True, once=True)
            if account := verified.headers.get("x-fireworks-account-id", ""):
                return last_segment(account)
        raise ConfigError(
            f"the key does not tell its account ({readable(', '.join(sorted(names))) or 'none'} listed).",
            hint="set FIREWORKS_ACCOUNT_ID, or fireworks.account_id in experiment.yaml",
        )

    def job(self, job_id: str) -> Fields | None:
        """The job's resource, None when the service says there is none."""
        return self._get(JOBS, job_id)

    def dataset(self, dataset_id: str) -> Fields | None:
        """The dataset's resource, None when the service says there is none."""
        return self._get(DATASETS, dataset_id)

    def refusal(self, answer: Answer, doing: str) -> ProviderError:
        """The error for an answer that is none of those the caller can use."""
        what = f"{doing}: the service {answer.said}."
        if answer.about_quota:
            return QuotaFull(what, kept=NOTHING_SPENT, hint="wait until a job ends, then run the same command again")
        hint = {
            402: "settle the account's bill at the service, then run the same command again",
            412: "see whether the account is suspended or unpaid, then run the same command again",
            413: "use smaller parts",
        }.get(answer.status, "what the service said names the cause; then run the same command again")
        return ProviderError(what, kept="This request was refused, so it created nothing and costs nothing.", hint=hint)

    def full_name(self, kind: str, resource_id: str) -> str:
        """The name a request body gives a resource."""
        return f"accounts/{self.name}/{kind}/{resource_id}"

    def path(self, kind: str, resource_id: str | None = None, verb: str | None = None) -> str:
        """The URL path of a collection, a resource, or a verb on one."""
        path = f"/v1/accounts/{self.name}/{kind}"
        if resource_id is not None:
            path += f"/{resource_id}"
        return path if verb is None else f"{path}:{verb}"

    def listed(self, kind: str) -> Iterator[Fields]:
        """All resources of a collection. Raises ProviderError when the pages do not end."""
        # Filtered here: which fields the service's own `filter` takes is not documented.
        token, seen = "", set[str]()
        while len(seen) < MAX_PAGES:
            query = {"pageSize": str(PAGE)} | ({"pageToken": token} if token else {})
            answer = self.api.call("GET", self.path(kind), query=query)
            if not answer.ok:
                raise self.refusal(answer, f"listing {kind}")
            entries = answer.fields.get(kind) or []
            if not isinstance(entries, list):
                raise ProviderError(f"listing {kind}: the service answered with no list.", hint="try again later")
            yield from (entry for entry in entries if isinstance(entry, dict))
            token = resources.text(answer.fields, "nextPageToken")  # a page may be empty and yet not the last
            if not token:
                return
            if token in seen:
                break
            seen.add(token)
        raise ProviderError(f"listing {kind}: the service's pages do not end.", hint="try again later")

    def delete(self, kind: str, resource_id: str) -> None:
        """Delete a resource; one that is gone already is fine."""
        answer = self.api.call("DELETE", self.path(kind, last_segment(resource_id)))
        if not answer.ok and answer.status != 404:
            raise self.refusal(answer, f"deleting {kind}/{resource_id}")

    def _get(self, kind: str, resource_id: str) -> Fields | None:
        answer = self.api.call("GET", self.path(kind, resource_id))
        if answer.status == 404:
            return None
        if not answer.ok:
            raise self.refusal(answer, f"asking for {kind}/{resource_id}")
        if not answer.fields:  # one field that is missing proves nothing, but this is no resource at all
            raise Unreachable(
                f"asking for {kind}/{resource_id}: the service answered {answer.status} and says nothing.",
                hint="run the same command again later",
            )
        return answer.fields
