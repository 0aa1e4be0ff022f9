"""schemathesis makes requests out of the management API's document, good and bad ones, as each kind of caller: none is
answered with a 500, and every answer is one that the document declares."""

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance,
)

from harness import contract, management
from harness.callers import Callers, control_section
from harness.issuer import Issuer

# Requests of each kind of caller to each operation.
EXAMPLES = 16
CALLERS = ("nobody", "key of A", "person A", "admin", "partner")
CHECKS = (
    status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance,
)


@pytest.fixture(scope="module")
def issuer():
    running = Issuer().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, provider, issuer, start_in):
    return start_in(tmp_path_factory.mktemp("schema"), provider=provider, control_more=control_section(issuer))


@pytest.fixture(scope="module")
def callers(gateway, issuer):
    return Callers(gateway, issuer)


@pytest.fixture(scope="module")
def document(gateway):
    return contract.Document(management.ask(gateway, "/openapi.json").body)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", CALLERS)
def test_no_request_has_an_answer_that_is_not_declared(document, callers, kind):
    presented = dict(callers.kinds[kind][0])
    base = f"http://127.0.0.1:{callers.gateway.control_port}"
    theirs = [callers.a.create_key(name="theirs")["id"], callers.b.account, callers.b.key["id"], callers.b.user["id"]]
    tried = 0
    for found in schemathesis.openapi.from_dict(document.said).get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(), chosen=hypothesis.strategies.sampled_from([None, *theirs]))
        @settings(
            max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, verbosity=Verbosity.quiet,
            phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
        )
        def ask(case, chosen):
            # Chance alone never finds what is there.
            if chosen:
                case.path_parameters = {name: chosen for name in case.path_parameters or {}}
            # Who asks is ours to say, not chance's.
            case.headers = {
                name: value for name, value in (case.headers or {}).items()
                if name.lower() not in ("authorization", "x-internal-secret")
            }
            response = case.call(base_url=base, headers=presented)
            assert response.status_code not in (500, 502, 503), f"{case.method} {case.path}: {response.text[:300]}"
            case.validate_response(response, checks=CHECKS)

        ask()
        tried += 1
    assert tried == len(document.operations())
