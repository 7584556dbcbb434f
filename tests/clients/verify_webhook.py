"""A receiver as anybody would write one: the reference library of Standard Webhooks. Reads one JSON
object a line from stdin, {secret, headers, body} with the raw body as a text, and prints for each
what the library makes of it: "ok" with the parsed payload, or the library's own refusal.
"""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    delivery = json.loads(line)
    try:
        payload = Webhook(delivery["secret"]).verify(delivery["body"].encode(), delivery["headers"])
    except WebhookVerificationError as error:
        print(json.dumps({"ok": False, "said": str(error)}))
        continue
    print(json.dumps({"ok": True, "id": payload["id"]}))
