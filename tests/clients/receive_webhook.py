"""A receiver as anybody would write one, of stock libraries: Standard Webhooks verifies, CloudEvents
parses. Reads one JSON object a line from stdin, {secret, headers, body} with the raw body as a text,
and prints for each {ok, events: [{attributes, data}]}, or the library's refusal.
"""

import json
import sys

from cloudevents.http import from_http, from_json
from standardwebhooks import Webhook, WebhookVerificationError

BATCH = "application/cloudevents-batch+json"


def shown(event):
    return {"attributes": dict(event.get_attributes()), "data": event.get_data()}


for line in sys.stdin:
    delivery = json.loads(line)
    headers, body = delivery["headers"], delivery["body"].encode()
    try:
        payload = Webhook(delivery["secret"]).verify(body, headers)
    except WebhookVerificationError as error:
        print(json.dumps({"ok": False, "said": str(error)}))
        continue
    if headers["content-type"] == BATCH:
        # The library knows no batches; their members are events in the JSON format.
        events = [from_json(json.dumps(member)) for member in payload]
    else:
        events = [from_http(headers, body)]
    print(json.dumps({"ok": True, "events": [shown(event) for event in events]}))
