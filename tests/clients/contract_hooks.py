"""What schemathesis can't know of the API: how texts are made that only look like any text, and how long to wait."""

import base64
import itertools
import json
import os
import re
import uuid

import schemathesis
from hypothesis import strategies as st


def organisation_number(digits):
    check = (11 - sum(weight * digit for weight, digit in zip([3, 2, 7, 6, 5, 4, 3, 2], digits)) % 11) % 11
    return "".join(map(str, digits)) + str(check) if check < 10 else None


digits = st.lists(st.integers(0, 9), min_size=8, max_size=8)
name = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
schemathesis.openapi.format("organisasjonsnummer", digits.map(organisation_number).filter(bool))
schemathesis.openapi.format("webhook-secret", st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode()))
# Nobody is ever called: .invalid has no addresses (RFC 6761).
schemathesis.openapi.format("webhook-address", name.map(lambda name: f"https://{name}.invalid/{name}"))
schemathesis.openapi.format("own-header", name.map(lambda name: f"x-{name}"))
schemathesis.openapi.format(
    "cloudevents-sql", st.sampled_from(["TRUE", "EXISTS subject", "type LIKE 'no.%'", "endringstype IN ('NY', 'SLETTET')"])
)
# Good as the place of an id and of an attempt.
schemathesis.openapi.format("page-cursor", st.from_regex(r"[0-9]{32}", fullmatch=True))


FILTERS_DEPTH_MAX = 8
FILTERS_BYTES_MAX = 16_384


def depth(filters):
    inner = [part for part in filters if isinstance(part, dict)]
    within = [value if isinstance(value, list) else [value] for part in inner for name, value in part.items() if name in ("all", "any", "not")]
    return 1 + max(map(depth, within)) if within else 0


@schemathesis.hook
def filter_case(context, case):
    # A shape can't say how deep it may nest in itself, nor how many bytes it may have in all.
    filters = case.body.get("filters") if isinstance(case.body, dict) else None
    return not isinstance(filters, list) or (depth(filters) <= FILTERS_DEPTH_MAX and len(json.dumps(filters)) <= FILTERS_BYTES_MAX)


fresh = (f"{uuid.uuid4()}-{number}" for number in itertools.count())


@schemathesis.hook
def before_call(context, case, kwargs):
    # A key that belongs to another request is rightly refused; one that is no key stays as it is.
    for name in [name for name in case.headers or {} if name.lower() == "idempotency-key"]:
        if re.fullmatch("[!-~]{1,255}", case.headers[name]):
            case.headers[name] = next(fresh)
    # Whoever revokes the token of this very run gets 401 from then on, and finds nothing any more.
    if case.path.startswith("/v1/tokens/") and (case.path_parameters or {}).get("id") == os.environ["RYGGRAD_TOKEN_ID"]:
        case.path_parameters["id"] = str(uuid.UUID(int=0))
    # An answer that waits for a minute is as good as one that waits for a second, and there are many.
    if str((case.query or {}).get("wait_s", "")).isdigit():
        case.query["wait_s"] = min(int(case.query["wait_s"]), 1) if int(case.query["wait_s"]) <= 60 else case.query["wait_s"]
