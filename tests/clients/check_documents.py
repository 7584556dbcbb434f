"""Stock validators over the API's documents: arguments are the addresses of OpenAPI and AsyncAPI and AsyncAPI's own schema."""

import json
import sys
import urllib.request

from jsonschema import Draft7Validator
from openapi_spec_validator import OpenAPIV31SpecValidator


def fetched(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.load(answer)


def told(document, errors):
    found = [{"path": list(map(str, error.absolute_path)), "message": error.message[:500]} for error in errors]
    print(json.dumps({"document": document, "errors": found}))


openapi, asyncapi, rules = sys.argv[1:]
told("openapi", OpenAPIV31SpecValidator(fetched(openapi)).iter_errors())
with open(rules, encoding="utf-8") as file:
    validator = Draft7Validator(json.load(file))
document = fetched(asyncapi)
told("asyncapi", validator.iter_errors(document))
# A validator that finds nothing wrong with this finds nothing.
next(iter(document["channels"].values()))["messages"] = 7
told("asyncapi, broken", validator.iter_errors(document))
