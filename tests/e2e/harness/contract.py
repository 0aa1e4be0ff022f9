"""The OpenAPI document as a test reads it: every operation, who may ask it by its own words, a request that it would
take, and whether an answer is one that it declares, with no field that it does not."""

import copy
import itertools
import json
import re
import urllib.parse

import jsonschema_rs

METHODS = ("get", "put", "post", "delete", "patch", "options", "head", "trace")
# How deep a sample goes into what refers to itself.
DEPTH_MAX = 6
COUNTER = itertools.count(1)


class Operation:
    """A method of a path."""

    def __init__(self, document, path, method):
        self.document, self.path, self.method = document, path, method.upper()
        self.said = document.said["paths"][path][method]

    def __repr__(self):
        return f"{self.method} {self.path}"

    @property
    def schemes(self):
        """Names of credentials, one of which is enough; `None` among them: none is needed. Nothing at all: none is
        looked at."""
        return {next(iter(one), None) for one in self.said.get("security", [])}

    @property
    def parameters(self):
        return self.said.get("parameters", [])

    def named(self, place):
        return [one["name"] for one in self.parameters if one["in"] == place]

    @property
    def body_schema(self):
        content = self.said.get("requestBody", {}).get("content", {})
        return content.get("application/json", {}).get("schema")

    def body(self):
        """A body that it would take, if it takes one."""
        return None if self.body_schema is None else self.document.sample(self.body_schema)

    def url(self, names=None):
        """Its path, with these values for its parameters; what is not named is filled with a word."""
        names = names or {}
        fill = lambda found: urllib.parse.quote(names.get(found[1], "unknown"), safe="")
        return re.sub(r"\{(\w+)\}", fill, self.path)

    def headers(self):
        """Those that it demands, fresh each time."""
        needed = [one for one in self.parameters if one["in"] == "header" and one.get("required")]
        return [(one["name"], f"value-{next(COUNTER)}") for one in needed]

    def check(self, answer):
        """The answer is declared, and has the declared fields and no others."""
        declared = self.said["responses"]
        assert str(answer.status) in declared, f"{self}: {answer.status} is not declared: {answer.body[:300]}"
        content = declared[str(answer.status)].get("content")
        if not content:
            assert answer.body == "", f"{self}: {answer.status} has no body by its word: {answer.body[:300]}"
            return
        kind = answer.headers["content-type"].split(";")[0]
        assert kind in content, f"{self}: {kind} is not declared for {answer.status}"
        if kind == "application/json" and "schema" in content[kind]:
            problems = list(self.document.validator(content[kind]["schema"]).iter_errors(answer.json()))
            assert not problems, f"{self}: {answer.status}: {[str(one) for one in problems][:3]}: {answer.body[:300]}"


class Document:
    """The whole of it."""

    def __init__(self, text):
        self.said = json.loads(text)
        self.strict = {}
        for name, schema in self.said.get("components", {}).get("schemas", {}).items():
            self.strict[name] = strict(schema)
            # As a part of a whole, which may name more.
            self.strict[f"{name}.part"] = strict(schema, is_part=True)

    def operations(self):
        return [
            Operation(self, path, method)
            for path, methods in self.said["paths"].items() for method in methods if method in METHODS
        ]

    def validator(self, schema):
        return jsonschema_rs.validator_for(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **strict(schema), "components": {"schemas": self.strict}},
        )

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.said["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def sample(self, schema, name="", depth=0):
        """A value of a schema with what it demands and nothing else."""
        schema = self.resolve(schema)
        if depth > DEPTH_MAX:
            return None
        if "example" in schema:
            return schema["example"]
        for several in ("oneOf", "anyOf"):
            if several in schema:
                return self.sample(schema[several][-1], name, depth + 1)
        if "allOf" in schema:
            parts = [self.sample(one, name, depth + 1) for one in schema["allOf"]]
            return {key: value for part in parts for key, value in part.items()}
        if "enum" in schema:
            return schema["enum"][0]
        kinds = schema.get("type", "object")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        match kind:
            case "object":
                properties = schema.get("properties", {})
                return {
                    one: self.sample(properties[one], one, depth + 1) for one in schema.get("required", [])
                    if one in properties
                }
            case "array":
                return []
            case "integer" | "number":
                return schema.get("minimum", 1)
            case "boolean":
                return True
            case "null":
                return None
        return "1.00" if name.endswith("_usd") else f"sample-{next(COUNTER)}"


def strict(schema, is_part=False):
    """The same with nothing allowed that it does not name, at any depth. A part of a whole may leave that to the
    whole."""
    schema = copy.deepcopy(schema)

    def close(part, is_part):
        for one in part.get("properties", {}).values():
            close(one, False)
        for name in ("items", "additionalProperties"):
            if isinstance(part.get(name), dict):
                close(part[name], False)
        for name in ("oneOf", "anyOf"):
            for one in part.get(name, []):
                close(one, is_part)
        for one in part.get("allOf", []):
            if "$ref" in one:
                one["$ref"] += ".part"
            close(one, True)
        names = "allOf" in part or "properties" in part
        if names and not is_part and "additionalProperties" not in part:
            part["unevaluatedProperties"] = False

    close(schema, is_part)
    return schema


def nested_bodies(document, schema, body):
    """The body with one field more that nobody knows: at its top, and in each object that it can hold."""
    schema = document.resolve(schema)
    yield {**body, "surprise": 1}
    for name, inner in schema.get("properties", {}).items():
        candidates = [inner, *inner.get("oneOf", []), *inner.get("anyOf", [])]
        for candidate in map(document.resolve, candidates):
            if "properties" in candidate:
                yield {**body, name: {**document.sample(candidate), "surprise": 1}}
