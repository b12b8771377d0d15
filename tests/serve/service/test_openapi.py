"""The OpenAPI document against the service: whatever the document allows or forbids, no answer is a server error."""

from __future__ import annotations

from pathlib import Path

import hypothesis

from tests.serve.served import PATIENCE, serving


def test_the_document_is_true(tmp_path: Path) -> None:
    # Here, as it takes longer to import than most tests to run: every process of tests reads every file of them.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [not_a_server_error, checks.content_type_conformance]
    wanted += [checks.response_schema_conformance, checks.status_code_conformance]
    with serving(tmp_path) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json", timeout=PATIENCE)
        tried = 0
        for found in schema.get_all_operations():
            operation = found.ok()

            @hypothesis.given(case=operation.as_strategy())
            @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
            def conforms(case: schemathesis.Case) -> None:
                case.call_and_validate(checks=wanted, timeout=PATIENCE)

            conforms()
            tried += 1
        assert tried >= 3
