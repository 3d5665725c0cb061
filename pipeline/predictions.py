"""The columns of `predictions.csv` and `usage.csv`, which parse writes and later phases read."""

from __future__ import annotations

PREDICTION_COLUMNS = [
    "custom_id",
    "dataset",
    "item_id",
    "condition",
    "temp",
    "sample_index",
    "type",
    "request_id",
    "finish_reason",
    "response_text",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "status",
    "error",
]
USAGE_COLUMNS = ["custom_id", "status", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"]

# The words of the column `status`.
OK = "ok"
ERROR = "error"  # no answer: failed, refused, or without text
TRUNCATED = "truncated"  # an answer that ran into the token limit
