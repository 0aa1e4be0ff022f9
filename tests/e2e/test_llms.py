"""The documentation as programs find it."""

import re

from harness import management


def test_an_agent_finds_its_way(start):
    gateway = start()
    index = management.ask(gateway, "/llms.txt")
    assert (index.status, index.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert index.body.startswith("# tokenroute\n\n> ")
    assert gateway.base_url in index.body
    here = f"http://127.0.0.1:{gateway.control_port}"
    links = re.findall(r"\]\((http[^)]+)\)", index.body)
    assert f"{here}/docs/cli.md" in links and f"{here}/openapi.json" in links
    whole = management.ask(gateway, "/llms-full.txt").body
    for link in links:
        answer = management.ask(gateway, link.removeprefix(here))
        assert answer.status == 200, link
        if "/docs/" in link:
            assert answer.body in whole
    missing = management.ask(gateway, "/docs/../Cargo.toml")
    assert missing.status == 404
    assert management.ask(gateway, "/docs/%ff").reason == "not_found"
