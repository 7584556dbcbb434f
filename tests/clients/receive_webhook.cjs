// A receiver as anybody would write one, of stock libraries: Standard Webhooks verifies, CloudEvents
// parses. Reads one JSON object a line from stdin, {secret, headers, body} with the raw body as a text,
// and prints for each {ok, events: [{attributes, data}]}, or the library's refusal.

const { HTTP } = require("cloudevents");
const { Webhook } = require("standardwebhooks");

function shown(event) {
  const { data, ...attributes } = event.toJSON();
  return { attributes, data };
}

const lines = require("fs").readFileSync(0, "utf8").split("\n").filter(Boolean);
for (const { secret, headers, body } of lines.map((line) => JSON.parse(line))) {
  let said;
  try {
    new Webhook(secret).verify(body, headers);
    said = { ok: true, events: [HTTP.toEvent({ headers, body })].flat().map(shown) };
  } catch (error) {
    said = { ok: false, said: error.message };
  }
  console.log(JSON.stringify(said));
}
