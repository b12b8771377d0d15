"""The OpenAPI document against the service: whatever the document allows or forbids, no answer is a server error."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serve.served import PATIENCE, serving

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


def test_the_document_is_true(tmp_path: Path) -> None:
    with serving(tmp_path) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json", timeout=PATIENCE)
        tried = 0
        for found in schema.get_all_operations():
            operation = found.ok()

            @hypothesis.given(case=operation.as_strategy())
            @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
            def conforms(case: schemathesis.Case) -> None:
                case.call_and_validate(checks=CHECKS, timeout=PATIENCE)

            conforms()
            tried += 1
        assert tried >= 3
